// The model drawn by plain arithmetic where WebGL is missing: a z-buffer over the triangles, one picture per change.

import type { Facts } from "./facts";
import type { Model } from "./glb";
import { axes, eye, FOV_Y, type Orbit } from "./orbit";
import type { Drawing, Mode } from "./scene";

const LONGEST = 560; // pixels of the longer side: a picture in about a tenth of a second

interface Surface {
  readonly model: Model;
  readonly normals: Float32Array; // (F, 3)
  readonly colors: Uint8ClampedArray; // (F, 3) sRGB
}

export async function openSoftware(model: Model, _facts: Facts): Promise<Drawing> {
  const canvas = document.createElement("canvas");
  const surface = { model, normals: faceNormals(model), colors: await faceColors(model) };
  let mode: Mode = "lit";
  return {
    canvas,
    modes: ["lit", "unlit", "normals"],
    setMode(next) {
      mode = next;
    },
    setGrid() {},
    resize(width, height) {
      const scale = Math.min(1, LONGEST / Math.max(width, height));
      canvas.width = Math.max(1, Math.round(width * scale));
      canvas.height = Math.max(1, Math.round(height * scale));
    },
    draw(orbit) {
      const context = canvas.getContext("2d");
      if (!context) return;
      const picture = rasterise(surface, orbit, canvas.width, canvas.height, mode);
      context.putImageData(new ImageData(picture as Uint8ClampedArray<ArrayBuffer>, canvas.width, canvas.height), 0, 0);
    },
    dispose() {},
  };
}

/** (H, W, 4) pixels; nothing seen is transparent. */
export function rasterise(surface: Surface, orbit: Orbit, width: number, height: number, mode: Mode): Uint8ClampedArray {
  const { model, normals, colors } = surface;
  const screen = project(model.position, orbit, width, height);
  const depth = new Float32Array(width * height).fill(Infinity);
  const pixels = new Uint8ClampedArray(width * height * 4);
  const { back, side, top } = axes(orbit);
  const light = [0, 1, 2].map((k) => 0.6 * back[k]! + 0.35 * side[k]! + 0.7 * top[k]!);
  const size = Math.hypot(...light);
  const ink = [0, 0, 0];
  for (let f = 0; f < model.index.length / 3; f++) {
    for (let c = 0; c < 3; c++) ink[c] = shade(mode, colors[3 * f + c]!, normals, f, c, light, size);
    triangle(screen, model.index, f, width, height, depth, pixels, ink);
  }
  return pixels;
}

function shade(mode: Mode, color: number, normals: Float32Array, f: number, c: number, light: number[], size: number): number {
  if (mode === "normals") return 127.5 * (normals[3 * f + c]! + 1);
  if (mode === "unlit") return color;
  const cosine = (normals[3 * f]! * light[0]! + normals[3 * f + 1]! * light[1]! + normals[3 * f + 2]! * light[2]!) / size;
  return color * (0.62 + 0.42 * Math.max(0, cosine));
}

/** (V, 3): column, row and depth of each vertex; depth is NaN behind the camera. */
function project(position: Float32Array, orbit: Orbit, width: number, height: number): Float32Array {
  const { side, top, back } = axes(orbit);
  const from = eye(orbit);
  const focal = height / 2 / Math.tan(FOV_Y / 2);
  const out = new Float32Array(position.length);
  for (let v = 0; v < position.length; v += 3) {
    const [x, y, z] = [position[v]! - from[0], position[v + 1]! - from[1], position[v + 2]! - from[2]];
    const depth = -(x * back[0]! + y * back[1]! + z * back[2]!);
    out[v] = width / 2 + (focal * (x * side[0]! + y * side[1]! + z * side[2]!)) / depth;
    out[v + 1] = height / 2 - (focal * (x * top[0]! + y * top[1]! + z * top[2]!)) / depth;
    out[v + 2] = depth > 1e-6 ? depth : NaN;
  }
  return out;
}

function triangle(
  screen: Float32Array,
  index: Uint32Array,
  f: number,
  width: number,
  height: number,
  depth: Float32Array,
  pixels: Uint8ClampedArray,
  ink: number[],
): void {
  const [a, b, c] = [3 * index[3 * f]!, 3 * index[3 * f + 1]!, 3 * index[3 * f + 2]!];
  const [ax, ay, bx, by] = [screen[a]!, screen[a + 1]!, screen[b]!, screen[b + 1]!];
  const [cx, cy] = [screen[c]!, screen[c + 1]!];
  const area = (bx - ax) * (cy - ay) - (by - ay) * (cx - ax);
  if (!Number.isFinite(area + screen[a + 2]! + screen[b + 2]! + screen[c + 2]!) || area === 0) return;
  const [x0, x1] = [Math.max(0, Math.floor(Math.min(ax, bx, cx))), Math.min(width - 1, Math.ceil(Math.max(ax, bx, cx)))];
  const [y0, y1] = [Math.max(0, Math.floor(Math.min(ay, by, cy))), Math.min(height - 1, Math.ceil(Math.max(ay, by, cy)))];
  for (let y = y0; y <= y1; y++) {
    for (let x = x0; x <= x1; x++) {
      const [px, py] = [x + 0.5, y + 0.5];
      const u = ((bx - px) * (cy - py) - (by - py) * (cx - px)) / area;
      const v = ((cx - px) * (ay - py) - (cy - py) * (ax - px)) / area;
      const w = 1 - u - v;
      if (u < 0 || v < 0 || w < 0) continue;
      const z = 1 / (u / screen[a + 2]! + v / screen[b + 2]! + w / screen[c + 2]!);
      const at = y * width + x;
      if (z >= depth[at]!) continue;
      depth[at] = z;
      pixels[4 * at] = ink[0]!;
      pixels[4 * at + 1] = ink[1]!;
      pixels[4 * at + 2] = ink[2]!;
      pixels[4 * at + 3] = 255;
    }
  }
}

export function faceNormals(model: Pick<Model, "position" | "index">): Float32Array {
  const { position, index } = model;
  const out = new Float32Array(index.length);
  for (let f = 0; f < index.length; f += 3) {
    const [a, b, c] = [3 * index[f]!, 3 * index[f + 1]!, 3 * index[f + 2]!];
    const p = [0, 1, 2].map((k) => position[b + k]! - position[a + k]!);
    const q = [0, 1, 2].map((k) => position[c + k]! - position[a + k]!);
    const cross = [p[1]! * q[2]! - p[2]! * q[1]!, p[2]! * q[0]! - p[0]! * q[2]!, p[0]! * q[1]! - p[1]! * q[0]!];
    const size = Math.hypot(...cross) || 1;
    for (let k = 0; k < 3; k++) out[f + k] = cross[k]! / size;
  }
  return out;
}

async function faceColors(model: Model): Promise<Uint8ClampedArray> {
  const out = new Uint8ClampedArray(model.index.length);
  const texels = model.baseColor && model.uv ? await decoded(model.baseColor) : null;
  for (let f = 0; f < model.index.length / 3; f++) {
    const corners = [0, 1, 2].map((k) => model.index[3 * f + k]!);
    if (texels && model.uv) {
      const [u, v] = [0, 1].map((k) => corners.reduce((sum, i) => sum + model.uv![2 * i + k]!, 0) / 3) as [number, number];
      const x = Math.min(texels.width - 1, Math.max(0, Math.floor(u * texels.width)));
      const y = Math.min(texels.height - 1, Math.max(0, Math.floor(v * texels.height)));
      out.set(texels.data.subarray(4 * (y * texels.width + x), 4 * (y * texels.width + x) + 3), 3 * f);
    } else {
      for (let c = 0; c < 3; c++) {
        const mean = model.color ? corners.reduce((sum, i) => sum + model.color![3 * i + c]!, 0) / 3 : 1;
        out[3 * f + c] = 255 * srgb(mean * model.factor[c]!);
      }
    }
  }
  return out;
}

async function decoded(blob: Blob): Promise<ImageData> {
  const bitmap = await createImageBitmap(blob);
  const canvas = document.createElement("canvas");
  canvas.width = bitmap.width;
  canvas.height = bitmap.height;
  const context = canvas.getContext("2d");
  if (!context) throw new Error("the texture cannot be read here");
  context.drawImage(bitmap, 0, 0);
  return context.getImageData(0, 0, bitmap.width, bitmap.height);
}

export function srgb(linear: number): number {
  return linear <= 0.0031308 ? 12.92 * linear : 1.055 * linear ** (1 / 2.4) - 0.055;
}
