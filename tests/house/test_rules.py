"""House rules, read from the syntax tree: CONTRIBUTING.md says why each is there."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import pytest

Function = ast.FunctionDef | ast.AsyncFunctionDef
Rule = Callable[[ast.Module, str], Iterator[tuple[int, str]]]

MAX_PARAMETERS, MAX_FUNCTION, MAX_FILE = 10, 60, 400
BLANKET = {"Exception", "BaseException"}
BANNED_CALLS = {"hasattr", "eval", "exec", "__import__", "compile"}
EMPTY_NAMES = re.compile(r"(?:\w*_)?(?:utils?|helpers?|misc|common|core|base)")
# the one process that meets foreign pickles: it has nothing else to lose
PICKLE_CHILD = "src/anyform/weights/pickle_child.py"
# import names of everything that the base install may lack
OPTIONAL = {
    "DracoPy", "accelerate", "embreex", "fastapi", "h5py", "igl", "matplotlib", "onnxruntime", "point_cloud_utils",
    "pxr", "pywt", "ray", "rembg", "soundfile", "sse_starlette", "starlette", "transformers", "diffusers", "triton",
    "uvicorn", "warp", "nvdiffrast", "zstandard",
}  # fmt: skip
MACHINE_PATH = re.compile(r"""["'\s=(](?:/work/|/tmp/|/root/|/farm/|/home/\w)""")


@cache
def nodes(tree: ast.Module) -> tuple[ast.AST, ...]:
    """All nodes of a module; kept, because every rule wants them."""
    return tuple(ast.walk(tree))


def functions(tree: ast.Module) -> Iterator[Function]:
    """Every function and method, nested ones too."""
    return (node for node in nodes(tree) if isinstance(node, Function))


def parameters(function: Function) -> list[ast.arg]:
    """All parameters but self and cls."""
    spec = function.args
    every = [*spec.posonlyargs, *spec.args, *spec.kwonlyargs, spec.vararg, spec.kwarg]
    return [one for one in every if one is not None and one.arg not in {"self", "cls"}]


def body_lines(function: Function) -> int:
    """Lines of a function without its signature and docstring."""
    body = function.body[1:] if ast.get_docstring(function) is not None else function.body
    return (function.end_lineno or 0) - body[0].lineno + 1 if body else 0


def imported(node: ast.AST) -> set[str]:
    """Top-level package names that an import statement loads; empty for every other node and for relative imports."""
    if isinstance(node, ast.Import):
        return {alias.name.partition(".")[0] for alias in node.names}
    if isinstance(node, ast.ImportFrom) and node.module and not node.level:
        return {node.module.partition(".")[0]}
    return set()


def at_import(tree: ast.Module) -> Iterator[ast.AST]:
    """The nodes that run when the module is imported: not inside functions, not under TYPE_CHECKING."""
    waiting: list[ast.AST] = [tree]
    while waiting:
        node = waiting.pop()
        yield node
        typing_only = isinstance(node, ast.If) and dotted(node.test).endswith("TYPE_CHECKING")
        inside = node.orelse if typing_only else ast.iter_child_nodes(node)
        waiting += [child for child in inside if not isinstance(child, Function | ast.Lambda)]


def dotted(node: ast.AST) -> str:
    """`a.b.c` for a name or a chain of attributes, "" for anything else (cheaper than `ast.unparse`)."""
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    return ".".join([node.id, *reversed(parts)]) if isinstance(node, ast.Name) else ""


def star_import(tree: ast.Module, name: str) -> Iterator[tuple[int, str]]:
    for node in nodes(tree):
        if isinstance(node, ast.ImportFrom) and node.names[0].name == "*" and not name.endswith("__init__.py"):
            yield node.lineno, f"from {node.module} import *"


def blanket_except(tree: ast.Module, name: str) -> Iterator[tuple[int, str]]:
    for node in nodes(tree):
        if isinstance(node, ast.ExceptHandler):
            caught = {one.id for one in ast.walk(node.type) if isinstance(one, ast.Name)} if node.type else BLANKET
            if caught & BLANKET:
                yield node.lineno, "catches everything: name what is expected"


def banned_call(tree: ast.Module, name: str) -> Iterator[tuple[int, str]]:
    for node in nodes(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in BANNED_CALLS:
            yield node.lineno, f"{node.func.id}()"


def path_edit(tree: ast.Module, name: str) -> Iterator[tuple[int, str]]:
    for node in nodes(tree):
        if isinstance(node, ast.Call) and dotted(node.func).startswith(("sys.path.", "site.addsitedir")):
            yield node.lineno, dotted(node.func)
        if isinstance(node, ast.Assign | ast.AugAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            if any(dotted(t.value if isinstance(t, ast.Subscript) else t) == "sys.path" for t in targets):
                yield node.lineno, "sys.path ="


def empty_name(tree: ast.Module, name: str) -> Iterator[tuple[int, str]]:
    for part in name.removesuffix(".py").split("/"):
        if EMPTY_NAMES.fullmatch(part):
            yield 1, f"{part!r} says nothing: name the mathematical or physical object"


def optional_at_import(tree: ast.Module, name: str) -> Iterator[tuple[int, str]]:
    for node in at_import(tree):
        for package in imported(node) & OPTIONAL:
            yield getattr(node, "lineno", 1), f"{package} is optional: import it in the function that needs it"


def many_parameters(tree: ast.Module, name: str) -> Iterator[tuple[int, str]]:
    for function in functions(tree):
        if len(parameters(function)) > MAX_PARAMETERS:
            yield function.lineno, f"{function.name} has {len(parameters(function))} parameters"


def loose_weights(tree: ast.Module, name: str) -> Iterator[tuple[int, str]]:
    for node in nodes(tree):
        if isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "load_state_dict":
            for keyword in node.keywords:
                if keyword.arg == "strict" and not (isinstance(keyword.value, ast.Constant) and keyword.value.value):
                    yield node.lineno, "weights that are not loaded strictly"


def unpickled(tree: ast.Module, name: str) -> Iterator[tuple[int, str]]:
    for node in nodes(tree):
        if isinstance(node, ast.Call) and dotted(node.func) == "torch.load":
            given = {one.arg: getattr(one.value, "value", None) for one in node.keywords}
            if given.get("weights_only") is not True:
                yield node.lineno, "torch.load without weights_only=True"
        if imported(node) & {"pickle", "dill", "cloudpickle", "marshal"} and name != PICKLE_CHILD:
            yield getattr(node, "lineno", 1), "imports a module that runs code when it reads"


def locale_text(tree: ast.Module, name: str) -> Iterator[tuple[int, str]]:
    for node in nodes(tree):
        if not isinstance(node, ast.Call) or any(keyword.arg in {"encoding", None} for keyword in node.keywords):
            continue
        called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        positional = {"read_text": 1, "write_text": 2}.get(called)
        if positional is not None and len(node.args) < positional:
            yield node.lineno, f"{called} without encoding"
        opener = called == "open" and (isinstance(node.func, ast.Name) or dotted(node.func).endswith("path.open"))
        if opener and "b" not in "".join(str(a.value) for a in mode_of(node) if isinstance(a, ast.Constant)):
            yield node.lineno, "open without encoding"


def mode_of(call: ast.Call) -> list[ast.expr]:
    """The mode argument of open() or Path.open(), as a list of none or one."""
    named = [keyword.value for keyword in call.keywords if keyword.arg == "mode"]
    return named or call.args[(1 if isinstance(call.func, ast.Name) else 0) :][:1]


def no_docstring(tree: ast.Module, name: str) -> Iterator[tuple[int, str]]:
    if ast.get_docstring(tree) is None:
        yield 1, "the module has no docstring"
    if not name.startswith("src/"):
        return  # the functions of a script are read with it
    owners: list[ast.Module | ast.ClassDef] = [tree, *(n for n in tree.body if isinstance(n, ast.ClassDef))]
    for owner in owners:
        inherits = isinstance(owner, ast.ClassDef) and bool(owner.bases)
        for node in owner.body:
            if not isinstance(node, Function | ast.ClassDef) or node.name.startswith("_"):
                continue
            # a method that overrides keeps the words of the class above
            if ast.get_docstring(node) is None and not (inherits and isinstance(node, Function)):
                yield node.lineno, f"public {node.name} has no docstring"


def no_types(tree: ast.Module, name: str) -> Iterator[tuple[int, str]]:
    for function in functions(tree):
        bare = [one.arg for one in parameters(function) if one.annotation is None]
        if bare or function.returns is None:
            yield function.lineno, f"{function.name}: no type for {', '.join(bare) or 'the result'}"


def long_function(tree: ast.Module, name: str) -> Iterator[tuple[int, str]]:
    for function in functions(tree):
        if body_lines(function) > MAX_FUNCTION:
            yield function.lineno, f"{function.name} has {body_lines(function)} lines (at most {MAX_FUNCTION})"


def loose_config(tree: ast.Module, name: str) -> Iterator[tuple[int, str]]:
    if not name.endswith("/config.py"):
        return
    for node in nodes(tree):
        if isinstance(node, ast.ClassDef):
            for decorator in map(ast.unparse, node.decorator_list):
                if "dataclass" in decorator and not ("frozen=True" in decorator and "kw_only=True" in decorator):
                    yield node.lineno, f"{node.name} is not frozen and keyword-only"


def torch_in_numpy_layer(tree: ast.Module, name: str) -> Iterator[tuple[int, str]]:
    if name.startswith(("src/anyform/geometry/", "src/anyform/types/")):
        for node in nodes(tree):
            if "torch" in imported(node):
                yield getattr(node, "lineno", 1), "geometry and types are numpy only"


def wall_clock(tree: ast.Module, name: str) -> Iterator[tuple[int, str]]:
    for node in nodes(tree):
        if isinstance(node, ast.Call) and dotted(node.func) in {"time.sleep", "sleep"}:
            yield node.lineno, "sleeps"
        if isinstance(node, ast.Assert) and re.search(r"perf_counter|monotonic\(|time\.time\(", ast.unparse(node)):
            yield node.lineno, "asserts on the wall clock"


# rule, where it holds (p package, s scripts, t tests), and a snippet that breaks it
RULES: list[tuple[Rule, str, str]] = [
    (star_import, "pst", "from os import *"),
    (blanket_except, "pst", "try:\n    f()\nexcept (ValueError, Exception):\n    raise"),
    (blanket_except, "pst", "try:\n    f()\nexcept:\n    raise"),
    (banned_call, "ps", "hasattr(x, 'y')"),
    (path_edit, "pst", "import sys\nsys.path.insert(0, 'src')"),
    (path_edit, "pst", "import sys\nsys.path += ['src']"),
    (empty_name, "pst", ""),
    (optional_at_import, "p", "try:\n    import h5py\nexcept ImportError:\n    pass"),
    (many_parameters, "pst", "def f(a, b, c, d, e, f, g, h, i, j, k): ..."),
    (loose_weights, "ps", "model.load_state_dict(state, strict=False)"),
    (unpickled, "ps", "torch.load(path)"),
    (locale_text, "pst", "open('a', 'w')"),
    (locale_text, "pst", "path.read_text()"),
    (no_docstring, "ps", "'''A module.'''\ndef public(): ..."),
    (no_types, "ps", "def f(a: int, b) -> int: ..."),
    (long_function, "ps", "def f():\n" + "    x = 1\n" * (MAX_FUNCTION + 1)),
    (loose_config, "p", "@dataclass(frozen=True)\nclass Settings: ..."),
    (torch_in_numpy_layer, "p", "def f():\n    import torch"),
    (wall_clock, "t", "time.sleep(1)"),
    (wall_clock, "t", "assert time.perf_counter() - start < 3"),
]
BROKEN_NAMES = {empty_name: "src/anyform/mesh_utils.py", loose_config: "src/anyform/systems/x/config.py"}


def rule_ids(rules: list[tuple[Rule, str, str]]) -> list[str]:
    """The rules' names, which pytest makes unique."""
    return [rule.__name__ for rule, _, _ in rules]


@pytest.mark.parametrize(("rule", "where", "snippet"), RULES, ids=rule_ids(RULES))
def test_rule_holds(rule: Rule, where: str, snippet: str, package: Any, scripts: Any, tests: Any) -> None:
    groups = {"p": package, "s": scripts, "t": tests}
    sources = [source for key in where for source in groups[key]]
    broken = [f"{s.name}:{line}: {said}" for s in sources for line, said in rule(s.tree, s.name)]
    assert not broken, "\n".join(["", *broken])


@pytest.mark.parametrize(("rule", "where", "snippet"), RULES, ids=rule_ids(RULES))
def test_rule_has_teeth(rule: Rule, where: str, snippet: str) -> None:
    name = BROKEN_NAMES.get(rule, "src/anyform/geometry/broken.py")
    assert len(list(rule(ast.parse(snippet), name))) == 1


def test_an_optional_package_lives_in_one_file(package: Any) -> None:
    homes: dict[str, set[str]] = {}
    for source in package:
        for node in nodes(source.tree):
            for name in imported(node) & OPTIONAL:
                homes.setdefault(name, set()).add(source.name)
    assert {name: files for name, files in homes.items() if len(files) > 1} == {}


def test_files_stay_readable(package: Any) -> None:
    long = {source.name: source.text.count("\n") for source in package if source.text.count("\n") > MAX_FILE}
    assert long == {}


def test_no_path_of_one_machine(package: Any, scripts: Any) -> None:
    named = [
        f"{source.name}:{number}: {line.strip()}"
        for source in [*package, *scripts]
        for number, line in enumerate(source.text.splitlines(), 1)
        if MACHINE_PATH.search(line)
    ]
    assert not named, "\n".join(["", *named])


def test_nothing_is_left_for_later(package: Any, scripts: Any) -> None:
    mark = re.compile(r"\b(TODO|FIXME|XXX|HACK)\b|raise NotImplementedError")
    left = [
        f"{source.name}:{number}"
        for source in [*package, *scripts]
        for number, line in enumerate(source.text.splitlines(), 1)
        if mark.search(line)
    ]
    assert not left, "\n".join(["", *left])
