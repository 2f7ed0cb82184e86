// The grid under a model: cells of a round number of millimetres, a little larger than the model's footprint.

import type { Facts } from "./facts";

/** The cell's edge in millimetres: 1, 2 or 5 times a power of ten, about a fifth of the longest side. */
export function cellMm(sizeMm: readonly number[]): number {
  const wanted = Math.max(...sizeMm, 1e-3) / 5;
  const power = 10 ** Math.floor(Math.log10(wanted));
  const first = wanted / power;
  return power * (first < 1.5 ? 1 : first < 3.5 ? 2 : first < 7.5 ? 5 : 10);
}

/** (2 · lines, 3) end points in metres, on the plane the model stands on. */
export function gridLines(facts: Pick<Facts, "sizeMm" | "low" | "high">): Float32Array {
  const cell = cellMm(facts.sizeMm) / 1000;
  const half = Math.ceil(Math.max(facts.sizeMm[0], facts.sizeMm[2]) / 1000 / 2 / cell + 1) * cell;
  const centre = [0, 2].map((k) => Math.round((facts.low[k]! + facts.high[k]!) / 2 / cell) * cell);
  const y = facts.low[1];
  const points: number[] = [];
  const count = Math.round((2 * half) / cell);
  for (let i = 0; i <= count; i++) {
    const at = -half + i * cell;
    points.push(centre[0]! + at, y, centre[1]! - half, centre[0]! + at, y, centre[1]! + half);
    points.push(centre[0]! - half, y, centre[1]! + at, centre[0]! + half, y, centre[1]! + at);
  }
  return Float32Array.from(points);
}
