// The colours a model mainly has, in words: the part of the text alternative that shapes cannot give.

import type { Model } from "./glb";
import { srgb } from "./software";

const NAMES: Record<string, readonly [number, number, number]> = {
  black: [20, 20, 22],
  "dark grey": [75, 75, 78],
  grey: [135, 135, 138],
  "light grey": [195, 195, 197],
  white: [246, 246, 246],
  red: [190, 35, 40],
  orange: [225, 120, 35],
  yellow: [235, 205, 60],
  green: [60, 140, 65],
  "dark green": [35, 75, 45],
  teal: [45, 140, 140],
  blue: [45, 85, 180],
  "dark blue": [30, 40, 90],
  "light blue": [140, 185, 225],
  purple: [115, 60, 150],
  pink: [230, 150, 175],
  brown: [120, 78, 45],
  "dark brown": [70, 45, 30],
  "light brown": [180, 140, 100],
  beige: [222, 205, 175],
};

/** The name of an sRGB colour, 0..255. */
export function colorName(red: number, green: number, blue: number): string {
  let best = "grey";
  let least = Infinity;
  for (const [name, [r, g, b]] of Object.entries(NAMES)) {
    const mean = (r + red) / 2; // the "redmean" distance: cheap, and near to what an eye says
    const [dr, dg, db] = [r - red, g - green, b - blue];
    const distance = (2 + mean / 256) * dr * dr + 4 * dg * dg + (2 + (255 - mean) / 256) * db * db;
    if (distance < least) [least, best] = [distance, name];
  }
  return best;
}

/** At most two names that cover the most vertices, the largest first; null where the model has no vertex colours. */
export function mainColors(model: Pick<Model, "color" | "factor">): readonly string[] | null {
  if (!model.color) return null;
  const count = new Map<string, number>();
  const total = model.color.length / 3;
  const step = Math.max(1, Math.floor(total / 4000));
  let seen = 0;
  for (let v = 0; v < total; v += step, seen++) {
    const [r, g, b] = [0, 1, 2].map((c) => 255 * srgb(model.color![3 * v + c]! * model.factor[c]!)) as [number, number, number];
    const name = colorName(r, g, b);
    count.set(name, (count.get(name) ?? 0) + 1);
  }
  const ranked = [...count].sort((a, b) => b[1] - a[1]).filter(([, n]) => n > 0.15 * seen);
  return ranked.slice(0, 2).map(([name]) => name);
}
