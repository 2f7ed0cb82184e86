// Which pixels of a picture are the object: a first guess that the user then mends. One byte a pixel, 255 = object.

export type Mask = Uint8ClampedArray;

/** The picture's own transparency, or null where it has none. */
export function fromAlpha(rgba: Uint8ClampedArray): Mask | null {
  const mask = new Uint8ClampedArray(rgba.length / 4);
  let transparent = false;
  for (let i = 0; i < mask.length; i++) {
    mask[i] = rgba[4 * i + 3]!;
    transparent ||= mask[i]! < 250;
  }
  return transparent ? mask : null;
}

/**
 * Everything that a plain background does not reach from the border, or null where the border is not plain or nothing
 * would be left. tolerance: largest difference of any channel, 0..255.
 */
export function fromPlainBackground(rgba: Uint8ClampedArray, width: number, height: number, tolerance = 24): Mask | null {
  const border: number[] = [];
  for (let x = 0; x < width; x++) border.push(x, (height - 1) * width + x);
  for (let y = 1; y < height - 1; y++) border.push(y * width, y * width + width - 1);
  const color = [0, 1, 2].map((c) => median(border.map((i) => rgba[4 * i + c]!)));
  const near = (i: number): boolean => [0, 1, 2].every((c) => Math.abs(rgba[4 * i + c]! - color[c]!) <= tolerance);
  const plain = border.filter(near);
  if (plain.length < 0.9 * border.length) return null;
  const mask = new Uint8ClampedArray(width * height).fill(255);
  const stack = plain;
  for (const i of stack) mask[i] = 0;
  while (stack.length) {
    const i = stack.pop()!;
    const x = i % width;
    for (const next of [x > 0 ? i - 1 : -1, x < width - 1 ? i + 1 : -1, i - width, i + width]) {
      if (next >= 0 && next < mask.length && mask[next] && near(next)) {
        mask[next] = 0;
        stack.push(next);
      }
    }
  }
  const kept = share(mask);
  return kept > 0.005 && kept < 0.97 ? mask : null;
}

/** The share of the picture that is object, 0..1. */
export function share(mask: Mask): number {
  let sum = 0;
  for (const value of mask) sum += value > 127 ? 1 : 0;
  return mask.length ? sum / mask.length : 0;
}

function median(values: number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.floor(sorted.length / 2)] ?? 0;
}
