// The model drawn by three.js. Frames are drawn when something changed, never in a loop by themselves.

import {
  AmbientLight,
  BufferAttribute,
  BufferGeometry,
  Color,
  DataTexture,
  DirectionalLight,
  HemisphereLight,
  LinearFilter,
  LinearMipmapLinearFilter,
  LineBasicMaterial,
  LineSegments,
  type Material,
  Mesh,
  MeshBasicMaterial,
  MeshNormalMaterial,
  MeshStandardMaterial,
  NearestFilter,
  NeutralToneMapping,
  NoToneMapping,
  PerspectiveCamera,
  RepeatWrapping,
  Scene,
  SRGBColorSpace,
  Texture,
  WebGLRenderer,
} from "three";

import type { Facts } from "./facts";
import { gridLines } from "./floor";
import type { Model } from "./glb";
import { eye, FOV_Y, type Orbit } from "./orbit";

export type Mode = "lit" | "unlit" | "normals" | "wireframe" | "uv";

/** What draws a model: WebGL here, plain arithmetic in `software.ts`. */
export interface Drawing {
  readonly canvas: HTMLCanvasElement;
  readonly modes: readonly Mode[];
  draw(orbit: Orbit): void;
  setMode(mode: Mode): void;
  setGrid(visible: boolean): void;
  resize(width: number, height: number): void;
  dispose(): void;
}

/** Throws where the browser has no WebGL. */
export async function openScene(model: Model, facts: Facts, dark: boolean): Promise<Drawing> {
  const renderer = new WebGLRenderer({ antialias: true, alpha: true, preserveDrawingBuffer: true });
  renderer.setPixelRatio(Math.min(window.devicePixelRatio, 2));
  renderer.outputColorSpace = SRGBColorSpace;
  const geometry = geometryOf(model);
  const materials = await materialsOf(model, facts);
  const scene = new Scene();
  const camera = new PerspectiveCamera((FOV_Y * 180) / Math.PI, 1, 0.001, 100);
  const mesh = new Mesh(geometry, materials.lit);
  const wires = new Mesh(geometry, new MeshBasicMaterial({ wireframe: true, color: dark ? 0xdfe6f0 : 0x20262e }));
  wires.visible = false;
  const grid = floor(facts, dark);
  lights(scene, camera);
  scene.add(mesh, wires, grid, camera);
  return {
    canvas: renderer.domElement,
    modes: facts.hasUv ? ["lit", "unlit", "normals", "wireframe", "uv"] : ["lit", "unlit", "normals", "wireframe"],
    setMode(mode) {
      renderer.toneMapping = mode === "lit" ? NeutralToneMapping : NoToneMapping;
      wires.visible = mode === "wireframe";
      mesh.material = mode === "wireframe" ? materials.flat : materials[mode];
    },
    setGrid(visible) {
      grid.visible = visible;
    },
    resize(width, height) {
      renderer.setSize(width, height, false);
      camera.aspect = width / height;
    },
    draw(orbit) {
      const reach = Math.hypot(...facts.sizeMm) / 1000;
      camera.near = Math.max(orbit.distance - 3 * reach, orbit.distance / 100);
      camera.far = orbit.distance + 12 * reach;
      camera.position.set(...eye(orbit));
      camera.lookAt(...orbit.target);
      camera.updateProjectionMatrix();
      renderer.render(scene, camera);
    },
    dispose() {
      geometry.dispose();
      for (const material of Object.values(materials)) release(material);
      renderer.dispose();
      renderer.forceContextLoss();
    },
  };
}

function geometryOf(model: Model): BufferGeometry {
  const geometry = new BufferGeometry();
  geometry.setAttribute("position", new BufferAttribute(model.position, 3));
  geometry.setIndex(new BufferAttribute(model.index, 1));
  if (model.normal) geometry.setAttribute("normal", new BufferAttribute(model.normal, 3));
  else geometry.computeVertexNormals();
  if (model.color) geometry.setAttribute("color", new BufferAttribute(model.color, 3));
  if (model.uv) geometry.setAttribute("uv", new BufferAttribute(model.uv, 2));
  return geometry;
}

type Materials = Record<"lit" | "unlit" | "normals" | "uv" | "flat", Material>;

async function materialsOf(model: Model, facts: Facts): Promise<Materials> {
  const color = new Color(...(model.factor.slice(0, 3) as [number, number, number]));
  const [map, surface, bumps] = await Promise.all([
    texture(model.baseColor, true),
    texture(model.metallicRoughness, false),
    texture(model.normalMap, false),
  ]);
  const look = { color, map, vertexColors: model.color !== null };
  return {
    lit: new MeshStandardMaterial({
      ...look,
      metalness: model.metallic,
      roughness: model.roughness,
      metalnessMap: surface,
      roughnessMap: surface,
      normalMap: bumps,
    }),
    unlit: new MeshBasicMaterial(look),
    normals: new MeshNormalMaterial(),
    uv: facts.hasUv ? new MeshBasicMaterial({ map: checker() }) : new MeshBasicMaterial(),
    flat: new MeshStandardMaterial({ ...look, roughness: 1, polygonOffset: true, polygonOffsetFactor: 1, polygonOffsetUnits: 1 }),
  };
}

async function texture(blob: Blob | null, isColor: boolean): Promise<Texture | null> {
  if (!blob) return null;
  const bitmap = await createImageBitmap(blob, { premultiplyAlpha: "none", colorSpaceConversion: "none" });
  const map = new Texture(bitmap);
  map.flipY = false;
  map.minFilter = LinearMipmapLinearFilter;
  map.magFilter = LinearFilter;
  if (isColor) map.colorSpace = SRGBColorSpace;
  map.needsUpdate = true;
  return map;
}

/** A board of 16 × 16 fields, red growing with u and green with v, so that stretching and seams show. */
function checker(): Texture {
  const side = 16;
  const data = new Uint8Array(side * side * 4);
  for (let i = 0; i < side * side; i++) {
    const [u, v] = [i % side, Math.floor(i / side)];
    const light = (u + v) % 2 ? 1 : 0.62;
    data.set([Math.round((70 + 11 * u) * light), Math.round((70 + 11 * v) * light), Math.round(190 * light), 255], 4 * i);
  }
  const map = new DataTexture(data, side, side);
  map.wrapS = map.wrapT = RepeatWrapping;
  map.magFilter = NearestFilter;
  map.colorSpace = SRGBColorSpace;
  map.needsUpdate = true;
  return map;
}

/** Light from everywhere, a key and a fill that travel with the viewer: no side is ever dark. */
function lights(scene: Scene, camera: PerspectiveCamera): void {
  const key = new DirectionalLight(0xffffff, 1.7);
  key.position.set(0.7, 1.1, 0.8);
  const fill = new DirectionalLight(0xeef3ff, 0.5);
  fill.position.set(-1, 0.2, 0.4);
  camera.add(key, fill, key.target, fill.target);
  key.target.position.set(0, 0, -1);
  fill.target.position.set(0, 0, -1);
  scene.add(new HemisphereLight(0xffffff, 0x9a948c, 1.3), new AmbientLight(0xffffff, 0.35));
}

function floor(facts: Facts, dark: boolean): LineSegments {
  const geometry = new BufferGeometry();
  geometry.setAttribute("position", new BufferAttribute(gridLines(facts), 3));
  const color = dark ? 0x6b7684 : 0xa3adb9;
  return new LineSegments(geometry, new LineBasicMaterial({ color, transparent: true, opacity: 0.55 }));
}

function release(material: Material): void {
  for (const value of Object.values(material)) if (value instanceof Texture) value.dispose();
  material.dispose();
}
