"""Textures found inside mesh files: PNG, JPEG and WebP only, with a cap on pixels that is checked before decoding."""

from __future__ import annotations

import io
import struct

import numpy as np
from numpy.typing import NDArray

from anyform.errors import BadInput

MAX_PIXELS = 8192 * 8192


def decode_image(content: bytes) -> NDArray[np.uint8]:
    """(H, W, 3) uint8, or (H, W, 4) where there is transparency. Raises BadInput for anything it cannot decode."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(io.BytesIO(content), formats=("PNG", "JPEG", "WEBP")) as image:
            width, height = image.size
            if width * height > MAX_PIXELS:
                raise BadInput(f"a texture has {width} × {height} pixels; up to {MAX_PIXELS} are read")
            mode = "RGBA" if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info else "RGB"
            return np.asarray(image.convert(mode))
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, EOFError, struct.error) as error:
        raise BadInput("a texture is damaged or is neither PNG, JPEG nor WebP") from error
    except Image.DecompressionBombError as error:
        raise BadInput(f"a texture has more than the {MAX_PIXELS} pixels that are read") from error
