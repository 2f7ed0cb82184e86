// Read a GLB (glTF 2.0 binary) that anyform wrote: one triangle mesh, one material, embedded textures.
// Everything else is refused with a sentence. Counts are checked against the bytes present before any view is made.

export interface Model {
  readonly position: Float32Array; // (V, 3) metres, +y up
  readonly normal: Float32Array | null;
  readonly color: Float32Array | null; // (V, 3) linear
  readonly uv: Float32Array | null; // (V, 2), v downwards as in glTF
  readonly index: Uint32Array; // (F, 3)
  readonly baseColor: Blob | null;
  readonly metallicRoughness: Blob | null;
  readonly normalMap: Blob | null;
  readonly factor: readonly [number, number, number, number];
  readonly metallic: number;
  readonly roughness: number;
  readonly provenance: Record<string, unknown> | null;
}

interface Gltf {
  asset?: { extras?: { anyform?: Record<string, unknown> } };
  meshes?: { primitives: { attributes: Record<string, number>; indices?: number; material?: number; mode?: number }[] }[];
  accessors?: Accessor[];
  bufferViews?: { byteOffset?: number; byteLength: number; byteStride?: number }[];
  materials?: {
    pbrMetallicRoughness?: {
      baseColorFactor?: [number, number, number, number];
      metallicFactor?: number;
      roughnessFactor?: number;
      baseColorTexture?: { index: number };
      metallicRoughnessTexture?: { index: number };
    };
    normalTexture?: { index: number };
  }[];
  textures?: { source: number }[];
  images?: { bufferView: number; mimeType: string }[];
}

interface Accessor {
  bufferView: number;
  byteOffset?: number;
  componentType: number;
  count: number;
  type: string;
  normalized?: boolean;
}

const SIZE: Record<number, number> = { 5121: 1, 5123: 2, 5125: 4, 5126: 4 };
const WIDTH: Record<string, number> = { SCALAR: 1, VEC2: 2, VEC3: 3, VEC4: 4 };

export function parseGlb(bytes: ArrayBuffer): Model {
  const { gltf, body } = chunks(bytes);
  const primitive = gltf.meshes?.[0]?.primitives[0];
  if (!primitive || (primitive.mode ?? 4) !== 4) throw new Error("the file holds no triangles");
  const read = (name: string): Float32Array | null => {
    const which = primitive.attributes[name];
    return which === undefined ? null : numbers(gltf, body, which);
  };
  const position = read("POSITION");
  if (!position || position.length === 0) throw new Error("the file holds no vertices");
  const count = position.length / 3;
  const index = primitive.indices === undefined ? null : Uint32Array.from(numbers(gltf, body, primitive.indices));
  const faces = index ?? Uint32Array.from({ length: count }, (_, i) => i);
  if (faces.length % 3 || faces.some((vertex) => vertex >= count)) throw new Error("the file has a face without corners");
  const material = gltf.materials?.[primitive.material ?? 0] ?? {};
  const surface = material.pbrMetallicRoughness ?? {};
  const picture = (texture?: { index: number }): Blob | null => (texture ? image(gltf, body, texture.index) : null);
  return {
    position,
    normal: read("NORMAL"),
    color: rgb(read("COLOR_0"), count),
    uv: read("TEXCOORD_0"),
    index: faces,
    baseColor: picture(surface.baseColorTexture),
    metallicRoughness: picture(surface.metallicRoughnessTexture),
    normalMap: picture(material.normalTexture),
    factor: surface.baseColorFactor ?? [1, 1, 1, 1],
    metallic: surface.metallicFactor ?? 1,
    roughness: surface.roughnessFactor ?? 1,
    provenance: gltf.asset?.extras?.anyform ?? null,
  };
}

function chunks(bytes: ArrayBuffer): { gltf: Gltf; body: DataView } {
  const view = new DataView(bytes);
  if (bytes.byteLength < 28 || view.getUint32(0, true) !== 0x46546c67) throw new Error("this is no GLB file");
  if (view.getUint32(8, true) !== bytes.byteLength) throw new Error("the file is cut off");
  const length = view.getUint32(12, true);
  if (view.getUint32(16, true) !== 0x4e4f534a || 20 + length > bytes.byteLength) throw new Error("the file is damaged");
  const gltf = JSON.parse(new TextDecoder().decode(new Uint8Array(bytes, 20, length))) as Gltf;
  const start = 20 + length + 8;
  if (start > bytes.byteLength) throw new Error("the file holds no geometry");
  return { gltf, body: new DataView(bytes, start) };
}

function numbers(gltf: Gltf, body: DataView, which: number): Float32Array {
  const accessor = gltf.accessors?.[which];
  const view = accessor && gltf.bufferViews?.[accessor.bufferView];
  const [size, width] = [SIZE[accessor?.componentType ?? 0], WIDTH[accessor?.type ?? ""]];
  if (!accessor || !view || !size || !width) throw new Error("the file describes its numbers in a way unknown here");
  const stride = view.byteStride ?? size * width;
  const start = (view.byteOffset ?? 0) + (accessor.byteOffset ?? 0);
  if (start + (accessor.count - 1) * stride + size * width > body.byteLength) throw new Error("the file is cut off");
  const out = new Float32Array(accessor.count * width);
  const scale = accessor.normalized ? 1 / (2 ** (8 * size) - 1) : 1;
  for (let i = 0, k = 0; i < accessor.count; i++) {
    for (let c = 0; c < width; c++) out[k++] = component(body, start + i * stride + c * size, accessor.componentType) * scale;
  }
  return out;
}

function component(body: DataView, at: number, type: number): number {
  if (type === 5126) return body.getFloat32(at, true);
  if (type === 5125) return body.getUint32(at, true);
  return type === 5123 ? body.getUint16(at, true) : body.getUint8(at);
}

function image(gltf: Gltf, body: DataView, texture: number): Blob {
  const source = gltf.images?.[gltf.textures?.[texture]?.source ?? -1];
  const view = source && gltf.bufferViews?.[source.bufferView];
  if (!source || !view) throw new Error("a texture of the file is missing");
  const start = body.byteOffset + (view.byteOffset ?? 0);
  return new Blob([body.buffer.slice(start, start + view.byteLength) as ArrayBuffer], { type: source.mimeType });
}

function rgb(color: Float32Array | null, count: number): Float32Array | null {
  if (!color) return null;
  const width = color.length / count;
  if (width === 3) return color;
  return Float32Array.from({ length: count * 3 }, (_, i) => color[Math.floor(i / 3) * width + (i % 3)]!);
}
