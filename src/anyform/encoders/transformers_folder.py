"""The optional library transformers, for the encoders that read its folders. The only file that imports it."""

from __future__ import annotations

from typing import Any

from anyform.errors import MissingDependency


def library() -> Any:
    """The module `transformers`. Raises MissingDependency where it is not installed."""
    try:
        import transformers
    except ImportError as error:
        raise MissingDependency("transformers", extra="foundations") from error
    return transformers
