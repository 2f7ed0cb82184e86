// Which kind of prompt a file is, by its name: for files dropped anywhere on the page.

import type { Kind } from "./api";

export const ACCEPT: Partial<Record<Kind, readonly string[]>> = {
  image: ["png", "jpg", "jpeg", "webp"],
  sketch: ["png", "jpg", "jpeg", "webp"],
  audio: ["wav", "flac", "ogg", "mp3"],
  points: ["ply", "npy", "npz", "xyz", "txt", "csv", "obj", "stl", "glb"],
  voxels: ["json", "npz", "npy", "binvox", "vox"],
};

export function suffix(name: string): string {
  const dot = name.lastIndexOf(".");
  return dot < 0 ? "" : name.slice(dot + 1).toLowerCase();
}

/** The kind for these files, or null where no kind takes them. Several pictures, or a ZIP, are views. */
export function kindOf(names: readonly string[]): Kind | null {
  if (names.length === 0) return null;
  const ends = names.map(suffix);
  if (names.length > 1) {
    const fit = ends.every((end) => ["png", "jpg", "jpeg", "webp", "npy", "json"].includes(end));
    return fit ? "views" : null;
  }
  if (ends[0] === "zip") return "views";
  for (const kind of ["image", "audio", "points", "voxels"] as const) {
    if (ACCEPT[kind]?.includes(ends[0]!)) return kind;
  }
  return null;
}
