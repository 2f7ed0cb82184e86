"""One way to frame a picture, in training and in use: a square around the object, which fills `ratio` of it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def frame(rgba: NDArray[np.uint8], size: int, ratio: float = 0.85) -> NDArray[np.uint8]:
    """(H, W, 4) with straight alpha -> (size, size, 4): centred on the alpha's bounding box, outside transparent.

    Colours are averaged with their alpha, so that what lies under transparent pixels never bleeds in. A picture without
    any alpha above 8 is framed whole.
    """
    from PIL import Image

    rows, columns = np.nonzero(rgba[..., 3] > 8)
    if len(rows) == 0:
        rows, columns = np.array([0, rgba.shape[0] - 1]), np.array([0, rgba.shape[1] - 1])
    top, bottom, left, right = rows.min(), rows.max() + 1, columns.min(), columns.max() + 1
    side = max(bottom - top, right - left) / ratio
    middle_row, middle_column = (top + bottom) / 2, (left + right) / 2
    box = (middle_column - side / 2, middle_row - side / 2, middle_column + side / 2, middle_row + side / 2)
    # only the window is padded: a margin around a whole photograph would take gigabytes
    first_row, last_row = int(np.floor(box[1])) - 1, int(np.ceil(box[3])) + 1
    first_column, last_column = int(np.floor(box[0])) - 1, int(np.ceil(box[2])) + 1
    rows = slice(max(0, first_row), min(rgba.shape[0], last_row))
    columns = slice(max(0, first_column), min(rgba.shape[1], last_column))
    window = rgba[rows, columns].astype(np.float32)
    window[..., :3] *= window[..., 3:] / 255
    beside = (rows.start - first_row, last_row - rows.stop), (columns.start - first_column, last_column - columns.stop)
    padded = np.pad(window, (*beside, (0, 0)))
    inside = box[0] - first_column, box[1] - first_row, box[2] - first_column, box[3] - first_row
    channels = [
        np.asarray(Image.fromarray(padded[..., c]).resize((size, size), Image.Resampling.BOX, box=inside))
        for c in range(4)
    ]
    framed = np.stack(channels, -1)
    framed[..., :3] /= np.maximum(framed[..., 3:] / 255, 1e-3)
    return np.clip(np.rint(framed), 0, 255).astype(np.uint8)
