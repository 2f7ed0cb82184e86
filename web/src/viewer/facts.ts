// What can be said of a model by measuring the file itself: the badges and the text alternative rest on nothing else.

import type { Model } from "./glb";

export interface Facts {
  readonly faces: number;
  readonly vertices: number;
  readonly sizeMm: readonly [number, number, number]; // width (x), height (y), depth (z)
  readonly low: readonly [number, number, number];
  readonly high: readonly [number, number, number];
  readonly watertight: boolean;
  readonly hasUv: boolean;
  readonly hasColor: boolean;
  readonly commercialUse: "yes" | "no" | "unknown";
  readonly licences: readonly string[];
}

export function measure(model: Model): Facts {
  const low = [Infinity, Infinity, Infinity];
  const high = [-Infinity, -Infinity, -Infinity];
  for (let i = 0; i < model.position.length; i++) {
    const value = model.position[i]!;
    if (value < low[i % 3]!) low[i % 3] = value;
    if (value > high[i % 3]!) high[i % 3] = value;
  }
  const size = [0, 1, 2].map((k) => (high[k]! - low[k]!) * 1000);
  return {
    faces: model.index.length / 3,
    vertices: model.position.length / 3,
    sizeMm: size as unknown as Facts["sizeMm"],
    low: low as unknown as Facts["low"],
    high: high as unknown as Facts["high"],
    watertight: isWatertight(model),
    hasUv: model.uv !== null,
    hasColor: model.color !== null || model.baseColor !== null,
    ...rights(model.provenance),
  };
}

/** Every edge is walked once in each direction, corners at the same place counting as one. */
export function isWatertight(model: Pick<Model, "position" | "index">): boolean {
  const label = welded(model.position);
  const balance = new Map<number, number>();
  const count = model.position.length / 3;
  const { index } = model;
  for (let f = 0; f < index.length; f += 3) {
    for (let k = 0; k < 3; k++) {
      const from = label[index[f + k]!]!;
      const to = label[index[f + ((k + 1) % 3)]!]!;
      if (from === to) continue;
      const [key, step] = from < to ? [from * count + to, 1] : [to * count + from, -1];
      const sum = (balance.get(key) ?? 0) + step;
      if (sum) balance.set(key, sum);
      else balance.delete(key);
    }
  }
  return balance.size === 0 && index.length > 0;
}

function welded(position: Float32Array): Uint32Array {
  const first = new Map<string, number>();
  const label = new Uint32Array(position.length / 3);
  for (let v = 0; v < label.length; v++) {
    const key = `${position[3 * v]},${position[3 * v + 1]},${position[3 * v + 2]}`;
    const seen = first.get(key);
    if (seen === undefined) first.set(key, v);
    label[v] = seen ?? v;
  }
  return label;
}

/** May one sell it? The strictest answer among the weights that touched it; "unknown" where the file says nothing. */
export function rights(provenance: Record<string, unknown> | null): Pick<Facts, "commercialUse" | "licences"> {
  const weights = Array.isArray(provenance?.["weights"]) ? (provenance["weights"] as Record<string, unknown>[]) : [];
  const answers = weights.map((record) => record["commercial_use"]);
  const licences = [...new Set(weights.map((record) => String(record["licence"])))];
  if (answers.includes("no")) return { commercialUse: "no", licences };
  const sure = answers.length > 0 && answers.every((answer) => answer === "yes");
  return { commercialUse: sure ? "yes" : "unknown", licences };
}

/** Lengths for people: millimetres below a metre, metres above. */
export function length(mm: number): string {
  if (mm >= 1000) return `${(mm / 1000).toFixed(2)} m`;
  return mm >= 10 ? `${Math.round(mm)} mm` : `${mm.toFixed(1)} mm`;
}

/** "412 × 800 × 390 mm", width × height × depth. */
export function dimensions(size: readonly [number, number, number]): string {
  const digits = Math.max(...size) < 10 ? 1 : 0;
  return `${size.map((value) => value.toFixed(digits)).join(" × ")} mm`;
}
