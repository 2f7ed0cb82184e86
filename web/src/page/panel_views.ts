// Several pictures of one object with their cameras, as photos or as depth maps; sent as one ZIP.

import { fill, h } from "../dom";
import { dropzone } from "./dropzone";
import { suffix } from "./files";
import type { Panel } from "./panel";
import { zip } from "./zip";

export function viewsPanel(): Panel {
  let files: File[] = [];
  const list = h("ul", { class: "filelist" });
  const problem = h("p", { class: "problem", role: "status" });
  const depth = h("input", { type: "radio", name: "views-kind" });
  const kinds = h(
    "div",
    { class: "segments", role: "radiogroup", "aria-label": "Kind of views" },
    h("label", {}, h("input", { type: "radio", name: "views-kind", checked: true }), h("span", {}, "Photos")),
    h("label", {}, depth, h("span", {}, "Depth maps")),
  );
  const zone = dropzone({
    id: "file-views",
    label: "Choose the views, or drop them",
    hint: "2 to 64 pictures together with their transforms.json, or one ZIP of them. WaLa's numbered views need no JSON.",
    accept: ["png", "jpg", "jpeg", "webp", "npy", "json", "zip"],
    multiple: true,
    take: (chosen) => panel.take!(chosen),
  });
  const panel: Panel = {
    kind: "views",
    label: "Views",
    icon: "views",
    element: h("div", {}, kinds, zone.element, problem, list),
    onChange: null,
    missing: () => missing(files),
    take(chosen) {
      files = chosen;
      zone.show(files);
      fill(list, ...files.slice(0, 12).map((file) => h("li", {}, file.name)), more(files.length - 12));
      fill(problem, missing(files) ?? "");
      panel.onChange?.();
    },
    async collect() {
      const kind = depth.checked ? "depths" : "views";
      return { request: { kind }, uploads: [{ name: kind, file: await packed(files), filename: `${kind}.zip` }] };
    },
  };
  return panel;
}

/** What a set of files lacks to be views, or null. */
export function missing(files: readonly { readonly name: string }[]): string | null {
  if (files.length === 0) return "Choose the views first.";
  const ends = files.map((file) => suffix(file.name));
  if (files.length === 1 && ends[0] === "zip") return null;
  const pictures = ends.filter((end) => end !== "json").length;
  if (ends.includes("zip")) return "Give either one ZIP or the pictures themselves.";
  if (pictures < 2) return `There ${pictures === 1 ? "is 1 picture" : "are no pictures"}: views are two or more.`;
  const json = ends.includes("json");
  const numbered = files.every((file) => suffix(file.name) === "json" || /\d+\.[a-z]+$/i.test(file.name));
  return json || numbered ? null : "Their cameras are missing: add the transforms.json.";
}

async function packed(files: readonly File[]): Promise<Blob> {
  if (files.length === 1) return files[0]!;
  const members = files.map(async (file) => ({ name: file.name, bytes: new Uint8Array(await file.arrayBuffer()) }));
  return zip(await Promise.all(members));
}

function more(count: number): HTMLElement | null {
  return count > 0 ? h("li", { class: "hint" }, `and ${count} more`) : null;
}
