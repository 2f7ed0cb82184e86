"""anyform: a prompt of any modality in, a checked 3D asset out.

    import anyform
    asset = anyform.generate(anyform.Text("a wooden chair"), seed=0)
    asset.save("chair.glb")

Importing this package loads neither torch nor numpy: every name below is fetched at its first use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from anyform.api import from_pretrained, generate, load
    from anyform.geometry.asset import Asset
    from anyform.types.prompt import Audio, Image, Points, Prompt, Sketch, Text, Views, Voxels

__version__ = "0.1.0"

__all__ = [
    "Asset",
    "Audio",
    "Image",
    "Points",
    "Prompt",
    "Sketch",
    "Text",
    "Views",
    "Voxels",
    "from_pretrained",
    "generate",
    "load",
]


def __getattr__(name: str) -> Any:
    """Fetch a public name from the module that defines it (PEP 562)."""
    if name in {"generate", "load", "from_pretrained"}:
        from anyform import api as home
    elif name == "Asset":
        from anyform.geometry import asset as home
    elif name in __all__:
        from anyform.types import prompt as home
    else:
        raise AttributeError(f"module 'anyform' has no attribute {name!r}")
    return getattr(home, name)


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
