// A place for files: a real file input with a label (keyboard, screen reader, touch) that also takes drops.

import { h, icon } from "../dom";
import { bytes } from "./words";

export interface Dropzone {
  readonly element: HTMLElement;
  show(files: readonly File[]): void;
}

export interface DropzoneOptions {
  readonly id: string;
  readonly label: string;
  readonly hint: string;
  readonly accept: readonly string[]; // suffixes
  readonly multiple?: boolean;
  take(files: File[]): void;
}

export function dropzone(options: DropzoneOptions): Dropzone {
  const accept = options.accept.map((end) => `.${end}`).join(",");
  const input = h("input", { type: "file", id: options.id, accept, multiple: options.multiple ?? false, class: "visually-hidden" });
  const chosen = h("span", { class: "drop-chosen", role: "status" });
  const element = h(
    "label",
    { class: "drop", for: options.id },
    icon("download"),
    h("strong", {}, options.label),
    h("span", { class: "hint" }, options.hint),
    chosen,
  );
  const box = h("div", {}, input, element);
  input.addEventListener("change", () => {
    if (input.files?.length) options.take([...input.files]);
    input.value = "";
  });
  return {
    element: box,
    show(files) {
      element.classList.toggle("has-file", files.length > 0);
      const size = files.reduce((sum, file) => sum + file.size, 0);
      const name = files.length === 1 ? files[0]!.name : `${files.length} files`;
      chosen.textContent = files.length ? `${name} (${bytes(size)})` : "";
    },
  };
}
