"""Prompts -> conditions of the embedded WaLa: lifting, framing, text vectors and the retrieved shape."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from anyform.diffusion.prior import Condition
from anyform.errors import BadInput
from anyform.systems.wala import lifting
from anyform.systems.wala.conditions import KINDS, Features, PromptEncoder, empty_features, with_encoded
from anyform.systems.wala.retrieval import Index, Neighbour, picture_key
from anyform.systems.wala.training_denoiser import image_input, sketch_input
from anyform.types.framing import frame
from anyform.types.prompt import Image, Points, Prompt, Sketch, Text, Views, Voxels

PICTURE = 64  # pixels of a framed picture
MAX_POINTS = 2500  # as in training (WaLa supplement E); more are thinned, fewer are fine
INK = 0.16  # ink above which a pixel belongs to a stroke


@dataclass(frozen=True, slots=True, eq=False)
class Read:
    """A prompt after reading: what the network will be told, and what finishing and retrieval need."""

    kind: str
    text: NDArray[np.float32] | None = None  # unit sentence vector
    framed: NDArray[np.uint8] | None = None  # (64, 64, 4) picture or sketch
    picture: NDArray[np.uint8] | None = None  # the cut-out image prompt at its own size, for its colours
    lifted: NDArray[np.float32] | None = None  # crude field


class EmbeddedConditions:
    """`condition(prompt)` and `null_condition()` of the embedded weights; see `conditions.PromptEncoder`."""

    accepts = (Text, Image, Sketch, Points, Voxels, Views)

    def __init__(
        self,
        encoder: PromptEncoder,
        index: Index,
        latent_of: Callable[[Tensor, int], Tensor],
        encode_field: Callable[[Tensor], Tensor],
    ) -> None:
        """latent_of: code indices (1, n), quarter turns -> standardised latent (1, C, g, g, g); encode_field: fields
        (B, N, N, N) in [-1, 1] -> the same.
        """
        self.encoder, self.index, self._latent_of, self._encode_field = encoder, index, latent_of, encode_field

    def read(self, prompt: Prompt) -> Read:
        """The prompt as plain arrays. Raises BadInput for kinds that WaLa has no encoder for."""
        if isinstance(prompt, Text):
            return Read("text", text=self._text_vector(prompt))
        if isinstance(prompt, Image):
            return self._read_image(prompt)
        if isinstance(prompt, Sketch):
            return _read_sketch(prompt)
        if isinstance(prompt, Points):
            return Read("points", lifted=lifting.from_points(_thinned(box_points(prompt.points))))
        if isinstance(prompt, Voxels):
            return Read("voxels", lifted=lifting.from_voxels(prompt.to_resolution(16).occupancy))
        if isinstance(prompt, Views):
            return self._read_views(prompt)
        raise BadInput(
            "WaLa's embedded weights read text, pictures, sketches, points, voxels and views, "
            f"not {type(prompt).__name__}"
        )

    def neighbours(self, read: Read, count: int = 8) -> list[Neighbour]:
        """Retrieved shapes, nearest first; none for prompts that carry geometry themselves."""
        if read.text is not None:
            return self.index.near_text(read.text, count)
        if read.framed is not None:
            return self.index.near_picture(picture_key(read.framed), count)
        return []

    def latent(self, neighbour: Neighbour) -> Tensor:
        """(1, C, g, g, g) standardised latent of a retrieved shape in its turn."""
        return self._latent_of(torch.from_numpy(self.index.codes(neighbour))[None], neighbour.turn)

    def features(self, read: Read, neighbour: Neighbour | None) -> Features:
        """A batch of one."""
        values = empty_features(self.encoder.config, 1)
        values["kind"][0] = KINDS.index(read.kind)
        if read.text is not None:
            values["text"][0], values["has_text"][0] = torch.from_numpy(read.text), True
        if read.framed is not None:
            rgba = read.framed.astype(np.float32) / np.float32(255)
            if read.kind == "image":
                picture = image_input(rgba)
            else:
                picture = sketch_input(rgba[..., 0] * (rgba[..., 3] > 0), rgba[..., 3])
            values["image"][0], values["has_image"][0] = torch.from_numpy(picture), True
        if read.lifted is not None:
            values["lifted"][0], values["has_lifted"][0] = torch.from_numpy(read.lifted), True
        if neighbour is not None:
            values["retrieved"][0], values["has_retrieved"][0] = self.latent(neighbour)[0], True
        return Features(**values)

    @torch.inference_mode()
    def encode(self, features: Features) -> Condition:
        """What the denoiser attends to, without gradients."""
        if self.encoder.config.encoded_lift:
            features = with_encoded(features, self._encode_field)
        return self.encoder(features)

    def condition(self, prompt: Prompt) -> Condition:
        """The prompt's condition with its nearest retrieved shape, (1, L, D) tokens and (1, C, g, g, g) grid."""
        read = self.read(prompt)
        return self.encode(self.features(read, next(iter(self.neighbours(read, 1)), None)))

    def null_condition(self) -> Condition:
        """No prompt at all: what guidance moves away from."""
        return self.encode(Features(**empty_features(self.encoder.config, 1)))

    def _text_vector(self, prompt: Text) -> NDArray[np.float32]:
        from anyform.encoders import embedded

        return embedded.load().text([prompt.text])[0][0].numpy()

    def _read_image(self, prompt: Image) -> Read:
        from anyform.encoders.cutout import cut_out

        cut = cut_out(prompt).rgba
        framed = frame(cut, PICTURE)
        field = lifting.from_silhouette(framed[..., 3] > 127)
        return Read("image", framed=framed, picture=cut, lifted=field)

    def _read_views(self, prompt: Views) -> Read:
        projection = lifting.Projection(prompt.cameras)
        if prompt.kind == "depth":
            return Read("depth", lifted=lifting.from_depths(prompt.pixels[..., 0], projection))
        return Read("views", lifted=lifting.from_masks(np.stack(_view_masks(prompt)), projection))


def _view_masks(prompt: Views) -> list[NDArray[np.bool_]]:
    """Silhouettes of RGB views: their alpha, else what the background remover keeps."""
    from anyform.encoders.cutout import cut_out

    masks = []
    for pixels in prompt.pixels:
        rgba = np.clip(np.rint(pixels * 255), 0, 255).astype(np.uint8)
        masks.append(cut_out(Image(rgba)).rgba[..., 3] > 127)
    return masks


def _read_sketch(prompt: Sketch) -> Read:
    """Ink with its filled outline, framed; the outline is what the strokes enclose."""
    ink = np.clip(prompt.ink, 0, 1)
    body = ndimage.binary_fill_holes(ink > INK)
    assert body is not None
    grey = np.rint(ink * 255).astype(np.uint8)
    rgba = np.dstack([grey, grey, grey, body.astype(np.uint8) * 255])
    framed = frame(rgba, PICTURE)
    return Read("sketch", framed=framed, lifted=lifting.from_silhouette(framed[..., 3] > 127))


def box_points(points: NDArray[np.floating]) -> NDArray[np.float32]:
    """Points centred by their bounding box, the longest side scaled to 1.8: the box that every shape here fills."""
    low, high = points.min(0), points.max(0)
    return ((points - (low + high) / 2) * (1.8 / float((high - low).max()))).astype(np.float32)


def _thinned(points: NDArray[np.float32]) -> NDArray[np.float32]:
    """At most `MAX_POINTS` of them, chosen by a fixed permutation."""
    if len(points) <= MAX_POINTS:
        return points
    return points[np.random.default_rng(0).permutation(len(points))[:MAX_POINTS]]
