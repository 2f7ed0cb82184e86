"""The grammar of the command line. Imports argparse and nothing of anyform's work."""

from __future__ import annotations

import argparse
from typing import NoReturn

from anyform import __version__
from anyform.errors import BadInput


class Parser(argparse.ArgumentParser):
    """argparse that says what is wrong in one sentence and leaves the exit code to `main`."""

    def __init__(self, **settings: object) -> None:
        super().__init__(**{"allow_abbrev": False, **settings})  # type: ignore[arg-type]

    def error(self, message: str) -> NoReturn:
        raise BadInput(f"{message} (see `{self.prog} --help`)")


def build_parser() -> Parser:
    """The whole grammar; every verb sets `run`, which takes the parsed arguments and returns the exit code."""
    parser = Parser(prog="anyform", description="A prompt of any modality in, a checked 3D asset out. Works offline.")
    parser.add_argument("--version", action="version", version=f"anyform {__version__}")
    verbs = parser.add_subparsers(title="verbs", required=True, metavar="VERB", parser_class=Parser)
    _generate(_verb(verbs, "generate", "make an asset from text, a picture, a sketch, points, voxels or views"))
    _imagine(_verb(verbs, "imagine", "ranked pictures of what a prompt asks for: the reference view of XBind"))
    _check(_verb(verbs, "check", "is a file finite, watertight, one body, well oriented, the right size?"))
    _models(_verb(verbs, "models", "the weights: licence, size, data, measured quality and cost"))
    _cite(_verb(verbs, "cite", "papers, licences and 'may I sell this?' for an asset made by anyform"))
    _doctor(_verb(verbs, "doctor", "what this machine can do, with a numeric self-test"))
    _serve(_verb(verbs, "serve", "a page and a REST API over durable jobs, on this machine only by default"))
    _work(verbs)
    _weights(_verb(verbs, "weights", "convert checkpoints to safetensors"))
    return parser


def _verb(verbs: argparse._SubParsersAction[Parser], name: str, summary: str) -> Parser:
    verb = verbs.add_parser(name, help=summary, description=summary[0].upper() + summary[1:] + ".")
    verb.add_argument("--json", action="store_true", help="one machine-readable record on stdout")
    verb.add_argument("--debug", action="store_true", help="show the traceback of an error")
    return verb


def _generate(verb: Parser) -> None:
    from anyform.cli.generate import run

    verb.set_defaults(run=run)
    _prompt(verb)
    _result(verb.add_argument_group("result"))
    how = verb.add_argument_group("how")
    how.add_argument("--system", metavar="NAME", help="default: the fastest that accepts the prompt")
    how.add_argument("--refine", metavar="NAME", help="system that continues from the asset")
    how.add_argument("--init", metavar="FILE", help="mesh to begin with instead of nothing (system xbind)")
    how.add_argument("--keep-geometry", action="store_true", help="only new colours for --init or --refine (xbind)")
    how.add_argument("--quality", choices=("draft", "standard", "high"), help="the one dial (default standard)")
    how.add_argument("--seed", metavar="N", help="0..4294967295; default random, printed and stored")
    how.add_argument("--variation", type=float, metavar="X", help="how far from the nearest known shape, 0..1")
    how.add_argument("--from-scratch", action="store_true", help="start from noise, not from a known shape")
    how.add_argument("--weights", metavar="W", help="released id, folder or file; default embedded")
    how.add_argument("--accept-licence", metavar="ID", help="accept the licence of released weights, once")
    how.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:N or mps")
    how.add_argument("--set", action="append", default=[], metavar="PATH=VALUE", help="any setting, by its dotted name")
    how.add_argument("--config", metavar="FILE", help="a config.json, or a GLB or 3MF made by anyform, to repeat")


def _prompt(verb: Parser) -> None:
    prompt = verb.add_argument_group("prompt (one of)")
    prompt.add_argument("text", nargs="?", help="what to make; - reads it from standard input")
    prompt.add_argument("--image", metavar="FILE", help="PNG, JPEG or WebP picture")
    prompt.add_argument("--sketch", metavar="FILE", help="line drawing, either polarity")
    prompt.add_argument("--points", metavar="FILE", help="point cloud, or a mesh to sample")
    prompt.add_argument("--voxels", metavar="FILE", help="JSON, NPZ, binvox or VOX")
    prompt.add_argument("--views", metavar="DIR", help="folder of pictures with their cameras")
    prompt.add_argument("--depths", metavar="DIR", help="folder of depth maps with their cameras")
    prompt.add_argument("--audio", metavar="FILE", help="WAV, FLAC, OGG or MP3")
    prompt.add_argument("--mask", metavar="FILE", help="what of the --image is the object (white)")
    prompt.add_argument("--background", choices=("auto", "keep"), default="auto", help="cut the --image out, or not")


def _imagine(verb: Parser) -> None:
    from anyform.cli.imagine import add_arguments, run

    verb.set_defaults(run=run)
    _prompt(verb)
    add_arguments(verb)


def _result(group: argparse._ArgumentGroup) -> None:
    group.add_argument("-o", "--output", metavar="FILE|DIR/", help="the suffix is the format; DIR/ keeps everything")
    group.add_argument("--faces", type=int, metavar="N", help="at most so many triangles")
    group.add_argument("--texture-size", type=int, metavar="N", help="edge of the texture in pixels")
    group.add_argument("--no-texture", action="store_true", help="shape only")
    group.add_argument("--size", metavar="LENGTH", help="longest side: 80mm, 8cm, 0.5m, 3in (else 1m; 80mm to print)")
    group.add_argument("--print", action="store_true", dest="for_print", help="one closed body, flat on the plate")
    group.add_argument("--force", action="store_true", help="overwrite")
    group.add_argument("--resume", action="store_true", help="go on with an interrupted run, keep a finished one")
    group.add_argument(
        "--views-out", metavar="DIR", help="PNGs and their cameras: the views it was made from, or eight"
    )
    group.add_argument("--no-prompt-in-file", action="store_true", help="leave the prompt out of the file")


def _check(verb: Parser) -> None:
    from anyform.cli.check import run

    verb.set_defaults(run=run)
    verb.add_argument("file", help="GLB, OBJ, PLY, STL or 3MF")
    verb.add_argument("--one-body", action="store_true", help="several parts fail too (always so for STL and 3MF)")


def _models(verb: Parser) -> None:
    from anyform.cli.models import run

    verb.set_defaults(run=run)


def _cite(verb: Parser) -> None:
    from anyform.cli.cite import run

    verb.set_defaults(run=run)
    verb.add_argument("file", help="a GLB or 3MF made by anyform, or its provenance.json")


def _doctor(verb: Parser) -> None:
    from anyform.cli.doctor import run

    verb.set_defaults(run=run)
    verb.add_argument("--warm", action="store_true", help="make one draft asset too, so that caches are filled")


def _serve(verb: Parser) -> None:
    from anyform.cli.serve import add_arguments, run

    verb.set_defaults(run=run)
    add_arguments(verb)


def _weights(verb: Parser) -> None:
    from anyform.cli.convert import run

    tasks = verb.add_subparsers(required=True, metavar="TASK", parser_class=Parser)
    convert = _verb(tasks, "convert", "a .ckpt, .pt or .bin to safetensors, in a child process that runs no code of it")
    convert.set_defaults(run=run)
    convert.add_argument("file", help="the pickled checkpoint")
    convert.add_argument("-o", "--output", required=True, metavar="FILE", help="the safetensors file to write")
    convert.add_argument("--force", action="store_true", help="overwrite")


def _work(verbs: argparse._SubParsersAction[Parser]) -> None:
    """data, train and evaluate: the work's own module reads the arguments after the task's name."""
    from anyform.cli import work

    for name, run, summary in (
        ("data", work.data, "prepare meshes for training"),
        ("train", work.train, "train a system"),
        ("evaluate", work.evaluate, "measure a system on a split"),
    ):
        verb = _verb(verbs, name, summary)
        verb.set_defaults(run=run)
        verb.add_argument("task", help="see the documentation")
        verb.add_argument("rest", nargs=argparse.REMAINDER, help="the task's own options: TASK --help")
