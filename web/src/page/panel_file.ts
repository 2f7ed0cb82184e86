// Kinds that are one file: point clouds and voxels.

import { h } from "../dom";
import type { Kind } from "./api";
import { dropzone } from "./dropzone";
import { ACCEPT } from "./files";
import type { Panel } from "./panel";

type FileKind = Extract<Kind, "points" | "voxels">;

const WORDS: Record<FileKind, { label: string; ask: string; hint: string }> = {
  points: {
    label: "Points",
    ask: "Choose a point cloud or a mesh, or drop one",
    hint: "PLY, XYZ, CSV, NPY, NPZ; of OBJ, STL and GLB the surface is sampled. +y is up, front towards +z.",
  },
  voxels: {
    label: "Voxels",
    ask: "Choose voxels, or drop a file",
    hint: "JSON (WaLa's form), NPZ, NPY, BINVOX or VOX, up to 256 an edge.",
  },
};

export function filePanel(kind: FileKind): Panel {
  let file: File | null = null;
  const words = WORDS[kind];
  const zone = dropzone({
    id: `file-${kind}`,
    label: words.ask,
    hint: words.hint,
    accept: ACCEPT[kind]!,
    take: (files) => panel.take!(files),
  });
  const panel: Panel = {
    kind,
    label: words.label,
    icon: kind,
    element: h("div", {}, zone.element),
    onChange: null,
    missing: () => (file ? null : "Choose a file first."),
    take(files) {
      file = files[0] ?? null;
      zone.show(file ? [file] : []);
      panel.onChange?.();
    },
    async collect() {
      if (!file) throw new Error("there is no file");
      return { request: { kind }, uploads: [{ name: kind, file, filename: file.name }] };
    },
  };
  return panel;
}
