// The left side: what to make and how.

import { fill, h, icon } from "../dom";
import type { Kind, Request, System } from "./api";
import { kindOf } from "./files";
import { audioPanel } from "./panel_audio";
import { filePanel } from "./panel_file";
import { imagePanel } from "./panel_image";
import { sketchPanel } from "./panel_sketch";
import { textPanel } from "./panel_text";
import { viewsPanel } from "./panel_views";
import type { Asked, Panel } from "./panel";
import { tablist } from "./tabs";
import { capital } from "./words";

export interface Order extends Asked {
  readonly count: number; // how many seeds
}

export interface Composer {
  readonly element: HTMLElement;
  setSystems(systems: readonly System[]): void;
  setUsual(seconds: Readonly<Record<string, string>>): void;
  setBusy(busy: boolean): void;
  say(problem: string, hint?: string): void;
  /** Files dropped or pasted anywhere; says so where nothing takes them. */
  take(files: File[]): void;
  /** Begin from an earlier request. */
  reuse(request: Request): void;
}

const QUALITIES = ["draft", "standard", "high"] as const;

export function composer(order: (order: Order) => void): Composer {
  const text = textPanel();
  const panels: Panel[] = [text, imagePanel(), sketchPanel(), audioPanel(), filePanel("points"), filePanel("voxels"), viewsPanel()];
  const tabs = tablist("Kind of prompt", panels, () => refresh());
  const options = optionFields();
  const note = h("p", { class: "hint", id: "go-note" });
  const problem = h("div", { class: "problem", role: "alert" });
  const go = h("button", { type: "submit", class: "button primary big", "aria-describedby": "go-note" }, "Generate");
  const usual = h("p", { class: "hint usual" });
  let systems: readonly System[] | null = null;
  let usualTimes: Readonly<Record<string, string>> = {};
  let busy = false;
  const form = h("form", { class: "card composer", novalidate: true, "aria-label": "New model" });
  form.append(h("h2", {}, "Make a 3D model"), tabs.element, options.element, usual, go, note, problem);

  function panel(): Panel {
    return panels[tabs.selected()]!;
  }

  function refresh(): void {
    const able = systems?.filter((system) => system.accepts.includes(panel().kind)) ?? null;
    options.offer(able, systems);
    const unable = able?.length === 0 ? `No system on this server takes ${panel().label.toLowerCase()} yet.` : null;
    const why = unable ?? panel().missing();
    go.setAttribute("aria-disabled", String(busy || why !== null));
    fill(note, busy ? "Sending…" : (why ?? ""));
    const time = usualTimes[options.quality()];
    fill(usual, time ? `${capital(options.quality())} usually takes ${time} here.` : "");
  }

  async function submit(): Promise<void> {
    fill(problem);
    refresh();
    if (go.getAttribute("aria-disabled") === "true") return;
    const asked = await panel().collect();
    order({ uploads: asked.uploads, request: { ...asked.request, ...options.values() }, count: options.count() });
  }

  for (const one of panels) one.onChange = refresh;
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    void submit();
  });
  form.addEventListener("change", refresh);
  form.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) void submit();
  });
  refresh();
  return {
    element: form,
    setSystems(list) {
      systems = list;
      refresh();
    },
    setUsual(seconds) {
      usualTimes = seconds;
      refresh();
    },
    setBusy(value) {
      busy = value;
      refresh();
    },
    say(sentence, hint = "") {
      fill(problem, icon("warn"), h("span", {}, h("strong", {}, sentence), hint ? ` ${hint}` : ""));
    },
    take(files) {
      const kind = kindOf(files.map((file) => file.name));
      const current = panel();
      const fits = kind === "image" && current.kind === "sketch" ? current : panels.find((one) => one.kind === kind);
      if (!fits?.take) {
        this.say("These files are no prompt.", "Drop one picture, sound, point cloud or voxel file, or several views.");
        return;
      }
      tabs.select(panels.indexOf(fits));
      fits.take(files);
    },
    reuse(request) {
      if (request.text) {
        tabs.select(0);
        text.set(request.text);
      } else {
        tabs.select(Math.max(0, panels.findIndex((one) => one.kind === (request.kind as Kind))));
      }
      options.begin(request);
      refresh();
    },
  };
}

interface Options {
  readonly element: HTMLElement;
  values(): Request;
  count(): number;
  quality(): string;
  offer(able: readonly System[] | null, all: readonly System[] | null): void;
  begin(request: Request): void;
}

function optionFields(): Options {
  const quality = radios("quality", "Quality", QUALITIES, "standard");
  const count = radios("count", "Variations", ["1", "2", "4"], "1");
  const system = h("select", { id: "system" }, h("option", { value: "" }, "Automatic"));
  const refine = h("select", { id: "refine" }, h("option", { value: "" }, "Nothing"));
  const refineField = field("Then refine with", refine, "refine");
  const seed = h("input", { id: "seed", type: "number", min: "0", max: "4294967295", step: "1", placeholder: "random" });
  const faces = h("input", { id: "faces", type: "number", min: "100", max: "1000000", step: "100", placeholder: "as made" });
  const size = h("input", { id: "size", type: "number", min: "1", max: "10000", step: "1", placeholder: "1000" });
  const print = h("input", { id: "print", type: "checkbox" });
  const details = h(
    "details",
    { class: "more" },
    h("summary", {}, "More settings"),
    h(
      "div",
      { class: "grid2" },
      field("System", system, "system"),
      refineField,
      field("Seed", seed, "seed"),
      field("Faces at most", faces, "faces"),
      field("Longest side, mm", size, "size"),
      h("label", { class: "check", for: "print" }, print, "Ready for a 3D printer"),
    ),
  );
  return {
    element: h("div", { class: "options" }, h("div", { class: "row" }, quality.element, count.element), details),
    values() {
      return {
        quality: quality.value(),
        ...(system.value && { system: system.value }),
        ...(refine.value && { refine: refine.value }),
        ...(seed.value && { seed: Number(seed.value) }),
        ...(faces.value && { faces: Number(faces.value) }),
        ...(size.value && { size: `${Number(size.value)}mm` }),
        ...(print.checked && { print: true }),
      };
    },
    count: () => Number(count.value()),
    quality: quality.value,
    offer(able, all) {
      choices(system, "Automatic", able ?? []);
      const refiners = (all ?? []).filter((one) => one.refines);
      choices(refine, "Nothing", refiners);
      refineField.hidden = refiners.length === 0;
    },
    begin(request) {
      quality.set(request.quality ?? "standard");
      seed.value = request.seed === undefined ? "" : String(request.seed);
      faces.value = request.faces === undefined ? "" : String(request.faces);
      size.value = request.size?.replace(/mm$/, "") ?? "";
      print.checked = request.print ?? false;
      if (seed.value || faces.value || size.value || print.checked) details.open = true;
    },
  };
}

/** Offer these systems, keeping what is chosen if it is still there. */
function choices(select: HTMLSelectElement, none: string, systems: readonly System[]): void {
  const chosen = select.value;
  fill(select, h("option", { value: "" }, none), ...systems.map((one) => h("option", { value: one.name }, one.name)));
  select.value = systems.some((one) => one.name === chosen) ? chosen : "";
}

function field(label: string, control: HTMLElement, id: string): HTMLElement {
  return h("div", { class: "field" }, h("label", { for: id }, label), control);
}

interface Radios {
  readonly element: HTMLElement;
  value(): string;
  set(value: string): void;
}

function radios(name: string, label: string, values: readonly string[], first: string): Radios {
  const inputs = values.map((value) => h("input", { type: "radio", name, value, checked: value === first }));
  const group = h("div", { class: "segments", role: "radiogroup", "aria-labelledby": `${name}-label` });
  inputs.forEach((input, i) => group.append(h("label", {}, input, h("span", {}, capital(values[i]!)))));
  return {
    element: h("div", { class: "field" }, h("span", { class: "label", id: `${name}-label` }, label), group),
    value: () => inputs.find((input) => input.checked)?.value ?? first,
    set(value) {
      for (const input of inputs) input.checked = input.value === value;
    },
  };
}
