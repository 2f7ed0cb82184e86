// A sketch: drawn here, or a picture of a drawing.

import { h } from "../dom";
import { dropzone } from "./dropzone";
import { ACCEPT } from "./files";
import { Paint, tinted } from "./paint";
import type { Panel } from "./panel";

const SIDE = 512; // pixels

export function sketchPanel(): Panel {
  let file: File | null = null;
  const paint = new Paint({
    width: SIDE,
    height: SIDE,
    label: "Sketch pad",
    pens: ["Pen", "Eraser"],
    size: 7,
    show(context, layer) {
      context.fillStyle = "#fff";
      context.fillRect(0, 0, SIDE, SIDE);
      context.drawImage(tinted(layer, "#15181d"), 0, 0);
    },
  });
  const zone = dropzone({
    id: "file-sketch",
    label: "…or choose a drawing",
    hint: "PNG, JPEG or WebP, dark lines on light or the other way round.",
    accept: ACCEPT.sketch!,
    take: (files) => panel.take!(files),
  });
  const panel: Panel = {
    kind: "sketch",
    label: "Sketch",
    icon: "sketch",
    element: h("div", {}, h("p", { class: "field-label" }, "Draw its outline and main lines"), paint.element, zone.element),
    onChange: null,
    missing: () => (file || !paint.isUntouched ? null : "Draw something first."),
    take(files) {
      file = files[0] ?? null;
      zone.show(file ? [file] : []);
      panel.onChange?.();
    },
    async collect() {
      const drawn = file ?? (await paint.png("#fff", "#000"));
      return { request: { kind: "sketch" }, uploads: [{ name: "sketch", file: drawn, filename: file?.name ?? "sketch.png" }] };
    },
  };
  paint.onChange = () => {
    file = null;
    zone.show([]);
    panel.onChange?.();
  };
  return panel;
}
