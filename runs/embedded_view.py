"""The embedded view prior: `python runs/embedded_view.py train|evaluate|sheet|pack DATA OUT`.

As runs/embedded_foundation.py; `train --start FOUNDATION/checkpoint.pt` begins from the foundation's average.
"""

from __future__ import annotations

import argparse
import json

import numpy as np
import torch
from embedded_foundation import GUIDANCE, STEPS, Kind, held_out, pack, parse, show, train, trained, unit
from PIL import Image as Pictures
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from anyform.diffusion.prior import Condition, Prior
from anyform.priors.arrays import PriorArrays
from anyform.priors.embedded import view_of
from anyform.priors.relative_camera import relative_camera
from anyform.priors.sampling import contact_sheet, sample, to_bytes
from anyform.priors.training import compose
from anyform.types.progress import Progress


class Cases:
    """Reference and targets of one object's first group of colours, under the trained prior."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.arrays, self.device = PriorArrays.open(args.data), args.device
        self.network = trained(args.out, "view", args.device)
        self.views = [v for v in range(self.arrays.rgba.shape[1]) if self.arrays.group(v) == 0]

    def truth(self, row: int) -> torch.Tensor:
        """(G, 3, 64, 64) on white; the first is the reference."""
        return torch.stack([compose(self.arrays.rgba[row, v], np.ones(3)) for v in self.views])

    def made(self, row: int) -> torch.Tensor:
        """(G − 1, 3, 64, 64): the targets as the prior makes them from the reference."""
        prior, condition = self.condition(row)
        seeds = [16 * row + k for k in range(len(self.views) - 1)]
        return sample(prior, condition, seeds, num_inference_steps=STEPS, guidance_scale=GUIDANCE, device=self.device)

    def condition(self, row: int) -> tuple[Prior, Condition]:
        """The joint embedding of the reference is the stored one."""
        stored = unit(self.arrays.joint_pictures[row, self.views[0]])[None]
        silent = torch.from_numpy(self.arrays.tokens[0].astype(np.float32))
        prior = view_of(self.network, lambda _: stored, lambda _: silent)
        azimuth, elevation, distance = (self.arrays.camera[row, self.views, k].astype(np.float64) for k in range(3))
        place = (float(elevation[0]), float(azimuth[0]), float(distance[0]), 1.0)
        others = (torch.from_numpy(part[1:]) for part in (elevation, azimuth, distance))
        return prior, prior.condition(self.truth(row)[:1].to(self.device), relative_camera(*others, 1.0, place))


def evaluate(args: argparse.Namespace, _: Kind) -> None:
    """OUT/measured.json: PSNR and SSIM of made views, of the copied reference and of the mean of the other views."""
    cases = Cases(args)
    rows = cases.arrays.objects(args.split)[: args.limit]
    scores: dict[str, list[tuple[float, float]]] = {"made": [], "reference copied": [], "mean view": []}
    for count, row in enumerate(rows, 1):
        truth, made = cases.truth(int(row)).numpy(), cases.made(int(row)).numpy()
        for k in range(1, len(truth)):
            others = np.delete(truth, k, 0).mean(0)
            for name, picture in (("made", made[k - 1]), ("reference copied", truth[0]), ("mean view", others)):
                psnr = peak_signal_noise_ratio(truth[k], picture, data_range=1)
                ssim = structural_similarity(truth[k], picture, channel_axis=0, data_range=1)
                scores[name].append((float(psnr), float(ssim)))
        show(Progress("views", count, len(rows)))
    measured: dict[str, object] = dict(held_out(cases.network, data=args.data, split=args.split, kind="view"))
    for name, some in scores.items():
        psnr, ssim = np.array(some).mean(0)
        measured[f"{args.split} {name}"] = {"PSNR": round(float(psnr), 2), "SSIM": round(float(ssim), 4)}
    (args.out / "measured.json").write_text(json.dumps(measured, indent=1), encoding="utf-8")
    print(json.dumps(measured, indent=1))


def sheet(args: argparse.Namespace, _: Kind) -> None:
    """OUT/sheet.png: a reference, then pairs of the true and the made view, ten objects of a split."""
    cases = Cases(args)
    rows = cases.arrays.objects(args.split)
    tiles = []
    for row in rows[:: max(1, len(rows) // 10)][:10]:
        truth, made = to_bytes(cases.truth(int(row))), to_bytes(cases.made(int(row)))
        tiles += [truth[0], *(one for pair in zip(truth[1:], made, strict=True) for one in pair)]
    columns = 1 + 2 * (len(cases.views) - 1)
    Pictures.fromarray(contact_sheet(np.stack(tiles), columns)).save(args.out / "sheet.png")


def main() -> None:
    jobs = {"train": train, "evaluate": evaluate, "sheet": sheet, "pack": pack}
    args = parse(__doc__, jobs)
    jobs[args.job](args, "view")


if __name__ == "__main__":
    main()
