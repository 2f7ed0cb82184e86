// The viewer as one file: the page imports it when the first model is there; in a notebook it stands inline in a frame
// and finds its model in the document, as base64 in <script type="application/octet-stream" id="anyform-model">.

import { fill, h } from "../dom";
import { dimensions } from "./facts";
import { badges, mount } from "./viewer";

export { dimensions, length } from "./facts";
export { badges, mount } from "./viewer";

async function mountInline(holder: HTMLElement): Promise<void> {
  const place = document.getElementById("anyform-viewer");
  if (!place) return;
  try {
    const bytes = Uint8Array.from(atob((holder.textContent ?? "").trim()), (letter) => letter.charCodeAt(0));
    const label = holder.dataset["label"] ?? "a model";
    const viewer = await mount(bytes.buffer, { label });
    const { facts } = viewer;
    const text = `${dimensions(facts.sizeMm)} · ${facts.faces.toLocaleString("en")} faces`;
    fill(place, viewer.element, h("div", { class: "inline-facts" }, h("span", {}, text), badges(facts)));
    document.documentElement.dataset["ready"] = "yes";
  } catch (error) {
    if (!(error instanceof Error)) throw error;
    fill(place, h("p", { class: "viewer-note" }, `The viewer could not start here: ${error.message}`));
  }
}

const inline = document.getElementById("anyform-model");
if (inline) void mountInline(inline);
