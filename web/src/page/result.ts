// What is written beside a finished model.

import { h, icon } from "../dom";
import type { Facts } from "../viewer/facts";
import type { Api, Job } from "./api";
import { bytes, duration } from "./words";

const FORMATS: Record<string, string> = {
  glb: "web, Unity, Blender",
  obj: "any program",
  "obj.zip": "with its textures",
  stl: "3D printing",
  "3mf": "3D printing",
  ply: "scans, research",
  usdz: "iPhone AR",
};

/** A table of measured facts and of how it was made. */
export function facts(job: Job, measured: Facts): HTMLElement {
  const { result, request } = job;
  const [x, y, z] = measured.sizeMm.map((value) => Math.round(value));
  const rows: [string, string][] = [
    ["Width × height × depth", `${x} × ${y} × ${z} mm`],
    ["Faces", measured.faces.toLocaleString("en")],
    ["Vertices", measured.vertices.toLocaleString("en")],
    ["System", result?.system ?? request.system ?? ""],
    ["Quality", request.quality ?? ""],
    ["Seed", String(request.seed ?? "")],
    ["Made in", result ? duration(result.seconds) : ""],
    ["Licence", result?.licences.join(", ") || measured.licences.join(", ")],
  ];
  const table = h("dl", { class: "facts" });
  for (const [name, value] of rows) if (value) table.append(h("div", {}, h("dt", {}, name), h("dd", {}, value)));
  const notes = [...(result?.notes ?? []), ...(result?.credits ?? []), ...(result?.reasons ?? [])];
  const list = notes.length ? h("ul", { class: "notes" }, ...notes.map((note) => h("li", {}, note))) : null;
  return h("div", {}, table, list && h("details", { class: "more" }, h("summary", {}, `Notes and credits (${notes.length})`), list));
}

export function seedLine(job: Job): HTMLElement {
  const made = job.result ? `, ${duration(job.result.seconds)}` : "";
  return h("p", { class: "hint" }, `Seed ${job.request.seed ?? "?"}, ${job.request.quality ?? ""}${made}`);
}

/** One link a format; GLB first and large. compact: GLB alone. */
export function downloads(api: Api, job: Job, compact: boolean): HTMLElement {
  const formats = job.result?.formats ?? {};
  const names = ["glb", ...Object.keys(formats).filter((name) => name !== "glb")];
  const row = h("div", { class: "downloads", role: "group", "aria-label": "Download" });
  for (const name of compact ? ["glb"] : names) {
    const size = formats[name]?.bytes;
    const label = h("span", {}, name === "glb" ? "Download GLB" : name.toUpperCase());
    const about = [FORMATS[name], size ? bytes(size) : ""].filter(Boolean).join(", ");
    const link = h("a", { class: name === "glb" ? "button primary" : "button", href: api.address(`jobs/${job.id}/asset.${name}`), download: "" });
    link.append(...(name === "glb" ? [icon("download")] : []), label, h("small", {}, about));
    row.append(link);
  }
  return row;
}
