// Small models for the tests.

export interface Shape {
  readonly position: Float32Array;
  readonly index: Uint32Array;
}

/** A closed box standing on y = 0. */
export function cube(size: readonly [number, number, number] = [1, 1, 1]): Shape {
  const corners = Array.from({ length: 8 }, (_, i) => [(i & 1) - 0.5, (i >> 1) & 1, ((i >> 2) & 1) - 0.5]);
  const position = Float32Array.from(corners.flatMap((corner) => corner.map((value, k) => value * size[k]!)));
  const quads = [[4, 5, 7, 6], [1, 0, 2, 3], [5, 1, 3, 7], [0, 4, 6, 2], [6, 7, 3, 2], [0, 1, 5, 4]];
  const index = Uint32Array.from(quads.flatMap(([a, b, c, d]) => [a!, b!, c!, a!, c!, d!]));
  return { position, index };
}

/** A GLB as anyform writes it: float positions, 16-bit linear RGBA, 16-bit indices. */
export function glb(shape: Shape, provenance: unknown = null, lie: { count?: number } = {}): ArrayBuffer {
  const count = shape.position.length / 3;
  const color = new Uint16Array(4 * count).fill(65535);
  const index = Uint16Array.from(shape.index);
  const parts = [shape.position, color, index].map((part) => new Uint8Array(part.buffer, part.byteOffset, part.byteLength));
  const starts = [0, parts[0]!.length, parts[0]!.length + parts[1]!.length];
  const gltf = {
    asset: { version: "2.0", extras: provenance ? { anyform: provenance } : {} },
    meshes: [{ primitives: [{ attributes: { POSITION: 0, COLOR_0: 1 }, indices: 2, material: 0 }] }],
    materials: [{ pbrMetallicRoughness: { metallicFactor: 0, roughnessFactor: 0.9 } }],
    accessors: [
      { bufferView: 0, componentType: 5126, count: lie.count ?? count, type: "VEC3" },
      { bufferView: 1, componentType: 5123, count, type: "VEC4", normalized: true },
      { bufferView: 2, componentType: 5123, count: index.length, type: "SCALAR" },
    ],
    bufferViews: parts.map((part, i) => ({ byteOffset: starts[i], byteLength: part.length })),
  };
  const json = new TextEncoder().encode(JSON.stringify(gltf).padEnd(Math.ceil(JSON.stringify(gltf).length / 4) * 4));
  const body = parts.reduce((sum, part) => sum + part.length, 0);
  const out = new Uint8Array(28 + json.length + body);
  const view = new DataView(out.buffer);
  [0x46546c67, 2, out.length, json.length, 0x4e4f534a].forEach((value, i) => view.setUint32(4 * i, value, true));
  out.set(json, 20);
  view.setUint32(20 + json.length, body, true);
  view.setUint32(24 + json.length, 0x004e4942, true);
  parts.forEach((part, i) => out.set(part, 28 + json.length + starts[i]!));
  return out.buffer;
}

/** Every third number, from `first` on. */
export function keys(values: Float32Array, first: number): number[] {
  return [...values].filter((_, i) => i % 3 === first);
}
