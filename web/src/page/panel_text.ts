import { fill, h } from "../dom";
import type { Panel } from "./panel";

const LONGEST = 2000; // characters, as the server counts
const EXAMPLES = ["a wooden chair", "a red mug", "a round table", "a desk lamp", "a bookcase"];

export interface TextPanel extends Panel {
  set(text: string): void;
}

export function textPanel(): TextPanel {
  const area = h("textarea", { id: "prompt-text", rows: "3", placeholder: "a wooden chair with armrests" });
  const count = h("span", { class: "hint count" });
  const panel: TextPanel = {
    kind: "text",
    label: "Text",
    icon: "text",
    element: h("div", {}),
    onChange: null,
    missing() {
      if (!area.value.trim()) return "Say what to make.";
      return area.value.length > LONGEST ? `The text has ${area.value.length} characters; ${LONGEST} fit.` : null;
    },
    async collect() {
      return { request: { kind: "text", text: area.value.trim() }, uploads: [] };
    },
    set(text) {
      area.value = text;
      changed();
    },
  };
  function changed(): void {
    fill(count, area.value.length > 0.8 * LONGEST ? `${area.value.length} of ${LONGEST}` : "");
    panel.onChange?.();
  }
  area.addEventListener("input", changed);
  const examples = h("div", { class: "chips", role: "group", "aria-label": "Examples" });
  for (const text of EXAMPLES) {
    examples.append(h("button", { type: "button", class: "chip", onclick: () => panel.set(text) }, text));
  }
  panel.element.append(h("label", { class: "field-label", for: "prompt-text" }, "What should it be?"), area, count, examples);
  return panel;
}
