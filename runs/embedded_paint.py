"""Train, measure and ship `src/anyform/embedded/paint.safetensors`, the colours of the embedded WaLa.

    python runs/embedded_paint.py prepare --data DATA --catalog CORPUS/catalog.json     # grids, captions; a few minutes
    python runs/embedded_paint.py train --data DATA                                     # resumes where it stopped
    python runs/embedded_paint.py ship --data DATA [--test]                  # figures of val (and test); the file

DATA holds, in two parts p, `v_ids_p.npy`, `v_pts_p.npy` (n, 4096, 3) surface points in world units, `v_prgb_p.npy`
their colours (uint8), `sdf64_p.npz` (ids, sdf int8 = distance in voxels / 4 · 127), and `text.npz` (ids, emb (n, 4,
384)). `prepare` adds `color16.npz` (ids, sparse grids as `wala.paint.splat` makes them) and `paint_*.npy`.

Each sample of a batch is one object. With probability .5 its dominant colour is moved to a named one in Lab and its
caption says so ("a dark red mug"), whatever its reference shows; else the caption is one of the plain ones. The
reference is absent (.3), the object's own grid (.15), the part of it one side sees (.2: what an image prompt gives), or
the grid of one of the five nearest captions of another near-duplicate group (.35). The text is absent with .15; then an
own reference is recoloured together with the object, so that colours are copied whatever they are.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor

from anyform.encoders.embedded import load as load_text
from anyform.systems.wala.colour import TYPICAL, dominant, lab_to_srgb, srgb_to_lab, words
from anyform.systems.wala.paint import LAB_MEAN, LAB_SCALE, Paint, diffused, shape_features, splat

SYNONYMS = {"gray": "grey", "violet": "purple", "teal": "turquoise", "tan": "beige"}
MATERIALS = {"golden": (0.83, 0.66, 0.22), "silver": (0.75, 0.75, 0.77), "wooden": (0.55, 0.38, 0.23)}
ASKED = ("red", "blue", "green", "yellow", "black", "white", "brown")  # words whose obedience is measured
TEMPLATES = (*["{a} {c} {n}"] * 3, "{c} {n}", "{n}, {c}", "{a} {n} painted {c}", "the {n} is {c}")
WEIGHTS = Path(__file__).resolve().parent.parent / "src" / "anyform" / "embedded" / "paint.safetensors"
ONE_SIDE, OWN, NEIGHBOUR = 0.2, 0.35, 0.7  # cumulative shares of the kinds of reference; the rest has none
POINTS, BATCH, MEAN = 384, 16, np.array(LAB_MEAN)


def targets() -> dict[str, NDArray[np.float64]]:
    """Colour word -> Lab (3,): the named colours, their dark and light shades, synonyms and three materials."""
    lab = {name: srgb_to_lab(rgb) for name, rgb in (TYPICAL | MATERIALS).items()}
    lab |= {name: lab[meaning] for name, meaning in SYNONYMS.items()}
    for name in ("red", "green", "blue", "purple", "brown", "grey"):
        lab[f"dark {name}"] = lab[name] * (0.55, 0.8, 0.8)
        lab[f"light {name}"] = lab[name] * (1, 0.65, 0.65) + (25, 0, 0)
    return lab


def prepare(data: Path, catalog: Path) -> None:
    """Shape features, sparse and diffused grids, dominant colours, and the vectors of every recoloured caption."""
    rows = {c["id"]: c for c in json.loads(catalog.read_text(encoding="utf-8"))}
    ids, shapes, grids, points, colours = [], [], [], [], []
    for part in (0, 1):
        with np.load(data / f"sdf64_{part}.npz") as archive:
            distances = archive["sdf"]
        points.append(np.load(data / f"v_pts_{part}.npy"))
        colours.append(np.load(data / f"v_prgb_{part}.npy"))
        ids.extend(np.load(data / f"v_ids_{part}.npy").tolist())
        for chunk in np.array_split(distances, 50):
            packed = shape_features(torch.from_numpy(chunk).float() / 127 * 0.125)
            shapes.append((packed * 127).round().to(torch.int8).numpy())
        grids.extend(splat(p, c / 255) for p, c in zip(points[-1], colours[-1], strict=True))
    np.savez_compressed(data / "color16.npz", ids=np.array(ids), grid=np.stack(grids))
    np.save(data / "paint_shape.npy", np.concatenate(shapes))
    np.save(data / "paint_points.npy", np.concatenate(points))
    lab = [srgb_to_lab(c / 255).astype(np.float16) for part in colours for c in part]
    np.save(data / "paint_lab.npy", np.stack(lab))
    np.save(data / "paint_diffused.npy", np.stack([diffused(g) for g in grids]).astype(np.float16))
    main_colour = [dominant(c / 255) for part in colours for c in part]
    rng, encoder, names = np.random.default_rng(0), load_text(), list(targets())
    captions = [rows[i]["caption"] for i in ids]
    unique = sorted(set(captions))
    sentences = [phrase(name, caption, rng) for caption in unique for name in names]
    vectors = torch.cat([encoder.text(sentences[i : i + 512])[0] for i in range(0, len(sentences), 512)])
    np.save(data / "paint_words.npy", vectors.reshape(len(unique), len(names), -1).half().numpy())
    meta = {
        "ids": ids,
        "caption": [unique.index(c) for c in captions],
        "dominant": main_colour,
        "split": [rows[i]["split"] for i in ids],
        "group": [rows[i]["group"] for i in ids],
        "mean_rgb": [rows[i]["mean_rgb"] for i in ids],
        "names": captions,
    }
    (data / "paint_meta.json").write_text(json.dumps(meta), encoding="utf-8")


def phrase(colour: str, caption: str, rng: np.random.Generator) -> str:
    """ "red", "mug" -> "a red mug" or another way of saying it."""
    article = "an" if colour[0] in "aeiou" else "a"
    return str(rng.choice(TEMPLATES)).format(a=article, c=colour, n=caption)


class Data:
    """Everything `prepare` wrote, in memory, with the nearest captions of other near-duplicate groups."""

    def __init__(self, data: Path) -> None:
        meta = json.loads((data / "paint_meta.json").read_text(encoding="utf-8"))
        self.ids, self.caption, self.names = meta["ids"], np.array(meta["caption"]), meta["names"]
        self.split, self.group, self.dominant = np.array(meta["split"]), np.array(meta["group"]), meta["dominant"]
        self.mean_rgb = np.array(meta["mean_rgb"]) / 255
        self.shape, self.points = np.load(data / "paint_shape.npy"), np.load(data / "paint_points.npy")
        self.lab, self.diffused = np.load(data / "paint_lab.npy"), np.load(data / "paint_diffused.npy")
        self.words = np.load(data / "paint_words.npy")
        with np.load(data / "color16.npz") as archive:
            self.grid = archive["grid"]
        with np.load(data / "text.npz") as archive:
            row = {i: k for k, i in enumerate(archive["ids"].tolist())}
            self.text = archive["emb"][[row[i] for i in self.ids]]
        self.targets = targets()
        self.nearest = self._nearest(5)

    def _nearest(self, count: int) -> NDArray[np.int64]:
        """(n, count) training objects of other groups with the nearest captions."""
        vectors = self.text[:, 0].astype(np.float32)
        similarity = vectors @ vectors.T
        similarity[:, self.split != "train"] = -2
        similarity[self.group[:, None] == self.group[None]] = -2
        return np.argsort(-similarity, 1, kind="stable")[:, :count]

    def reference(self, index: int, partial: NDArray[np.uint8] | None = None) -> NDArray[np.float32]:
        """(5, 16, 16, 16): features of an object's grid, or of a sparse grid that shows part of it."""
        grid = self.grid[index] if partial is None else partial
        lab = self.diffused[index] if partial is None else diffused(partial)
        flags = np.stack([grid.any(-1), np.ones(grid.shape[:3])])
        return np.concatenate([((lab - MEAN) / LAB_SCALE).transpose(3, 0, 1, 2), flags]).astype(np.float32)

    def one_side(self, index: int, rng: np.random.Generator) -> NDArray[np.uint8]:
        """The sparse grid of what one random direction sees of an object."""
        return one_side(self.points[index].astype(np.float32), self.lab[index].astype(np.float32), rng)


def one_side(points: NDArray[np.floating], lab: NDArray[np.floating], rng: np.random.Generator) -> NDArray[np.uint8]:
    """The sparse grid of the points seen from a random direction near the horizon: the nearest in each cell of 36²."""
    azimuth, elevation = rng.uniform(0, 2 * np.pi), rng.uniform(-0.1, 0.7)
    towards = np.array([np.cos(elevation) * np.sin(azimuth), np.sin(elevation), np.cos(elevation) * np.cos(azimuth)])
    right = np.array([np.cos(azimuth), 0, -np.sin(azimuth)])
    u, v, depth = points @ right, points @ np.cross(towards, right), -points @ towards
    pixel = ((u + 1.8) / 3.6 * 36).astype(int) * 36 + ((v + 1.8) / 3.6 * 36).astype(int)
    front = np.full(36 * 36, np.inf)
    np.minimum.at(front, pixel, depth)
    seen = depth < front[pixel] + 0.12
    return splat(points[seen], lab_to_srgb(lab[seen]))


def recoloured(
    lab: NDArray[np.float32], dominant_word: str, target: NDArray[np.float64], rng: np.random.Generator
) -> NDArray[np.float32]:
    """Move the dominant colour of Lab points (N, 3) to `target`; with .4 every colour moves with it."""
    chosen = words(lab_to_srgb(lab)) == dominant_word
    centre = np.median(lab[chosen] if chosen.any() else lab, 0)
    difference = lab - centre
    distance = np.linalg.norm(difference, axis=1, keepdims=True)
    reach = np.inf if rng.random() < 0.4 else 30
    weight = np.exp(-((distance / reach) ** 2))
    contrast = np.where(weight > 0.5, (0.7, 0.5, 0.5), 1.0)
    aim = target + rng.normal(size=3) * (5, 4, 4)
    moved = (1 - weight) * lab + weight * (aim + difference * contrast)
    moved[:, 0] = moved[:, 0].clip(2, 98)
    return moved.astype(np.float32)


def sample(data: Data, index: int, rng: np.random.Generator) -> tuple[NDArray[np.generic], ...]:
    """One training sample: shape, text, reference, points, their Lab; mirrored and turned at random."""
    points, lab = data.points[index].astype(np.float32), data.lab[index].astype(np.float32)
    silent, kind, names = rng.random() < 0.15, rng.random(), list(data.targets)
    moved, name = lab, str(rng.choice(names))
    if rng.random() < 0.5:
        moved = recoloured(lab, data.dominant[index], data.targets[name], rng)
        text = data.words[data.caption[index], names.index(name)]
    elif rng.random() < 0.25:
        text = data.words[data.caption[index], names.index(data.dominant[index])]
    else:
        text = data.text[index, rng.integers(3)]
    if silent:  # nothing but the reference can tell the colours, so an own reference is recoloured with the target
        text = np.zeros_like(text)
        if kind >= OWN:
            moved = lab
    if kind < OWN:
        source = moved if silent else lab
        part = one_side(points, source, rng) if kind < ONE_SIDE else splat(points, lab_to_srgb(source))
        reference = data.reference(index, part)
    elif kind < NEIGHBOUR:
        reference = data.reference(int(rng.choice(data.nearest[index])))
    else:
        reference = np.zeros((5, 16, 16, 16), np.float32)
    pick = rng.choice(4096, POINTS, replace=False)
    points, lab = points[pick], moved[pick]
    shape = data.shape[index].astype(np.float32) / 127
    cube = shape.reshape(2, 2, 2, 16, 16, 16).transpose(3, 0, 4, 1, 5, 2).reshape(32, 32, 32)
    if rng.random() < 0.5:
        points[:, 0] *= -1
        cube, reference = cube[::-1], reference[:, ::-1]
    if rng.random() < 0.4:  # retrieval by picture turns objects in quarters: see systems/wala/retrieval.py
        quarter = int(rng.integers(1, 4))
        cube, reference = np.rot90(cube, quarter, (0, 2)), np.rot90(reference, quarter, (1, 3))
        for _ in range(quarter):
            points = np.stack([-points[:, 2], points[:, 1], points[:, 0]], 1)
    shape = cube.reshape(16, 2, 16, 2, 16, 2).transpose(1, 3, 5, 0, 2, 4).reshape(8, 16, 16, 16)
    return shape, text.astype(np.float32), reference.copy(), points, lab


def at_points(grid: Tensor, points: Tensor) -> Tensor:
    """Normalised Lab grid (B, 3, n, n, n) at points (B, N, 3) -> Lab (B, N, 3)."""
    found = F.grid_sample(grid, points.flip(-1)[:, :, None, None], padding_mode="border", align_corners=False)
    return found[..., 0, 0].transpose(1, 2) * LAB_SCALE + torch.tensor(LAB_MEAN)


def learn_words(model: Paint, data: Data, seed: int, steps: int = 1500) -> None:
    """Seconds of regression from sentences to one colour, before any shape: captions to their object's mean colour, and
    recoloured captions to the colour they name. Without it the network is slow to notice the words."""
    rng, chosen = np.random.default_rng(seed), np.flatnonzero(data.split == "train")
    captions, colours = np.unique(data.caption[chosen]), np.stack(list(data.targets.values()))
    means = data.lab.astype(np.float32).mean(1)
    optimiser = torch.optim.AdamW([*model.text.parameters(), *model.base.parameters()], lr=2e-3, weight_decay=0.05)
    for step in range(steps):
        who, asked, name = rng.choice(chosen, 128), rng.choice(captions, 128), rng.integers(len(colours), size=128)
        text = np.concatenate([data.text[who, rng.integers(3, size=128)], data.words[asked, name]]).astype(np.float32)
        wanted = np.concatenate([means[who], colours[name]])
        text *= rng.random((256, 1)) > 0.05
        base = model.base(model.condition(torch.from_numpy(text)))[:, :3] * LAB_SCALE + torch.tensor(LAB_MEAN)
        loss = ((base - torch.from_numpy(wanted).float()).square().sum(-1) + 1).sqrt()
        optimiser.zero_grad(set_to_none=True)
        loss.mean().backward()
        optimiser.param_groups[0]["lr"] = 2e-3 * (1 - step / steps)
        optimiser.step()
        if (step + 1) % 250 == 0:
            print(f"words {step + 1}: plain {loss[:128].mean():.1f}, coloured {loss[128:].mean():.1f}", flush=True)


def train(folder: Path, steps: int, seed: int) -> None:
    """AdamW, cosine rate after a short warm-up, EMA, bf16 autocast; a checkpoint every 50 steps, resumed if present."""
    torch.manual_seed(seed)
    data, model = Data(folder), Paint().to(memory_format=torch.channels_last_3d)
    checkpoint, start, spent = folder / "paint_checkpoint.pt", 0, 0.0
    if not checkpoint.exists():
        learn_words(model, data, seed)
    average = {k: v.detach().clone() for k, v in model.state_dict().items()}
    optimiser = torch.optim.AdamW(model.parameters(), lr=2e-3, betas=(0.9, 0.98), weight_decay=0.02)
    if checkpoint.exists():
        kept = torch.load(checkpoint, weights_only=True)
        model.load_state_dict(kept["model"])
        optimiser.load_state_dict(kept["optimiser"])
        average, start, spent = kept["average"], kept["step"], kept["cpu_seconds"]
    pool = np.flatnonzero(data.split == "train")
    clock, losses = time.process_time() - spent, []
    for step in range(start, steps):
        rng = np.random.default_rng([seed, step])  # by step, so that a resumed run sees the same batches
        batch = [sample(data, int(i), rng) for i in rng.choice(pool, BATCH, replace=False)]
        shape, text, reference, points, lab = (torch.from_numpy(np.stack(x)) for x in zip(*batch, strict=True))
        with torch.autocast("cpu", torch.bfloat16):
            grid = model(shape, text, reference)
        loss = ((at_points(grid.float(), points) - lab).square().sum(-1) + 1).sqrt().mean()
        optimiser.param_groups[0]["lr"] = 2e-3 * min((step + 1) / 40, 0.5 + 0.5 * math.cos(math.pi * step / steps))
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 100.0)
        optimiser.step()
        keep = min(0.995, (step + 1) / (step + 10))
        for name, value in model.state_dict().items():
            average[name].lerp_(value, 1 - keep)
        losses.append(loss.item())
        if (step + 1) % 50 == 0 or step + 1 == steps:
            seconds = time.process_time() - clock
            print(f"step {step + 1} of {steps}: loss {np.mean(losses[-50:]):.2f}, {seconds:.0f} CPU s", flush=True)
            state = {"model": model.state_dict(), "optimiser": optimiser.state_dict(), "average": average}
            state |= {"step": step + 1, "cpu_seconds": seconds}
            torch.save(state, checkpoint.with_suffix(".new"))
            checkpoint.with_suffix(".new").replace(checkpoint)


def painted(
    model: Paint, data: Data, index: NDArray[np.int64], text: NDArray[np.float16] | None, mode: str
) -> NDArray[np.float64]:
    """Lab (len(index), 1024, 3) at every fourth point; mode: reference "none", "nearest", "own" or "side"."""
    out = []
    for start in range(0, len(index), 32):
        some = index[start : start + 32]
        vectors = torch.zeros(len(some), 384) if text is None else torch.from_numpy(text[start : start + 32]).float()
        reference = np.zeros((len(some), 5, 16, 16, 16), np.float32)
        for row, i in enumerate(some):
            if mode == "nearest":
                reference[row] = data.reference(int(data.nearest[i, 0]))
            elif mode == "own":
                reference[row] = data.reference(int(i))
            elif mode == "side":
                reference[row] = data.reference(int(i), data.one_side(int(i), np.random.default_rng(int(i))))
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
            shape = torch.from_numpy(data.shape[some]).float() / 127
            grid = model(shape, vectors, torch.from_numpy(reference))
            out.append(at_points(grid.float(), torch.from_numpy(data.points[some, ::4]).float()).numpy())
    return np.concatenate(out).astype(np.float64)


def figures(model: Paint, data: Data, split: str) -> dict[str, float]:
    """Mean CIEDE2000 at surface points, mean over objects, of the model and its baselines; and the obey rates."""
    from skimage.color import deltaE_ciede2000

    index = np.flatnonzero(data.split == split)
    truth = data.lab[index, ::4].astype(np.float64)
    caption = data.text[index, 1]

    def error(lab: NDArray[np.float64]) -> float:
        return round(float(deltaE_ciede2000(np.broadcast_to(lab, truth.shape), truth).mean()), 2)

    corpus = srgb_to_lab(data.mean_rgb[data.split == "train"]).mean(0)
    closest = torch.from_numpy((data.diffused[data.nearest[index, 0]] - MEAN) / LAB_SCALE).float()
    copied = at_points(closest.permute(0, 4, 1, 2, 3), torch.from_numpy(data.points[index, ::4]).float())
    nearest = srgb_to_lab(data.mean_rgb[data.nearest[index, 0]])
    out = {
        "objects": float(len(index)),
        "dE_text": error(painted(model, data, index, caption, "none")),
        "dE_shape_only": error(painted(model, data, index, None, "none")),
        "dE_text_nearest": error(painted(model, data, index, caption, "nearest")),
        "dE_text_own_grid": error(painted(model, data, index, caption, "own")),
        "dE_one_side_seen": error(painted(model, data, index, None, "side")),
        "dE_best_constant_per_object": error(truth.mean(1, keepdims=True)),
        "dE_global_constant": error(corpus),
        "dE_nearest_copied": error(copied.numpy().astype(np.float64)),
        "dE_nearest_mean": error(nearest[:, None]),
    }
    asked = index[:: max(1, len(index) // 60)]  # spread over the split: the words cost 14 passes
    for mode in ("none", "nearest"):
        rates = []
        for name in ASKED:
            lab = painted(model, data, asked, plain_words(data, asked, name), mode)
            rates.append(np.mean([dominant(lab_to_srgb(one[::2])) == name for one in lab]))
            out[f"obeys_{name}_reference_{mode}"] = round(float(rates[-1]), 3)
        out[f"obeys_reference_{mode}"] = round(float(np.mean(rates)), 3)
    return out


def plain_words(data: Data, index: NDArray[np.int64], name: str) -> NDArray[np.float16]:
    """Vectors of "a {name} {caption}" for objects."""
    return load_text().text([f"a {name} {data.names[i]}" for i in index])[0].half().numpy()


def ship(folder: Path, test: bool) -> None:
    """Measure the averaged weights and write them in fp16 with the figures."""
    data, model = Data(folder), Paint()
    kept = torch.load(folder / "paint_checkpoint.pt", weights_only=True)
    weights = {name: value.half().contiguous() for name, value in kept["average"].items()}
    model.load_state_dict({name: value.float() for name, value in weights.items()})
    metadata = {
        "model": "anyform paint",
        "licence": "Apache-2.0",
        "data": "anyform open corpus, train split: CC0-1.0 and CC-BY-3.0 objects, see ATTRIBUTION.md",
        "recipe": "runs/embedded_paint.py",
        "steps": str(kept["step"]),
        "samples": str(kept["step"] * BATCH),
        "cpu_seconds": f"{kept['cpu_seconds']:.0f}",
    }
    for split in ("val", "test") if test else ("val",):
        metadata[split] = json.dumps(figures(model.eval(), data, split))
        print(split, metadata[split], flush=True)
    save_file(weights, WEIGHTS, metadata=metadata)
    WEIGHTS.chmod(0o644)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("job", choices=("prepare", "train", "ship"))
    parser.add_argument("--data", type=Path, default=Path("data"), help="folder of the training arrays")
    parser.add_argument("--catalog", type=Path, default=Path("data/catalog.json"))
    parser.add_argument("--steps", type=int, default=270)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--test", action="store_true", help="measure the test split too: once, at the end")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.job == "prepare":
        prepare(arguments.data, arguments.catalog)
    elif arguments.job == "train":
        train(arguments.data, arguments.steps, arguments.seed)
    else:
        ship(arguments.data, arguments.test)


if __name__ == "__main__":
    main()
