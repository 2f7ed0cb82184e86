// One model on the screen: the picture, its tools, its facts. The page and the notebook mount the same element.

import { fill, h, icon } from "../dom";
import { dimensions, type Facts, length, measure } from "./facts";
import { cellMm } from "./floor";
import { type Model, parseGlb } from "./glb";
import { framing, type Orbit, panned, spoken, turned, zoomed } from "./orbit";
import { mainColors } from "./palette";
import { type Drawing, type Mode, openScene } from "./scene";
import { openSoftware } from "./software";

export interface Viewer {
  readonly element: HTMLElement;
  readonly facts: Facts;
  readonly provenance: Model["provenance"];
  /** Take another viewer's standpoint without telling anyone. */
  follow(look: Look): void;
  /** Who wants to know where this one looks from. */
  onLook: ((look: Look) => void) | null;
  destroy(): void;
}

/** A standpoint that fits models of any size: zoom is 1 where the whole model is in the picture. */
export interface Look {
  readonly azimuth: number;
  readonly elevation: number;
  readonly zoom: number;
}

export interface Options {
  readonly label: string; // what the model is, for the text alternative
  readonly turn?: boolean; // turn once around at first, unless the reader prefers less motion
  readonly software?: boolean; // draw without WebGL
}

const MODES: Record<Mode, string> = { lit: "Lit", unlit: "Unlit", normals: "Normals", wireframe: "Wireframe", uv: "UV" };
const STEP = Math.PI / 24;
const TURN_SECONDS = 14;

/** Throws with a sentence where the bytes are no model. */
export async function mount(bytes: ArrayBuffer, options: Options): Promise<Viewer> {
  const model = parseGlb(bytes);
  const facts = measure(model);
  const dark = window.matchMedia("(prefers-color-scheme: dark)").matches;
  const asked = document.documentElement.dataset["theme"];
  const drawing = await openDrawing(model, facts, asked ? asked === "dark" : dark, options.software ?? false);
  return new Panel(model, facts, drawing, options);
}

async function openDrawing(model: Model, facts: Facts, dark: boolean, software: boolean): Promise<Drawing> {
  if (!software && hasWebGl()) return openScene(model, facts, dark);
  return openSoftware(model, facts);
}

function hasWebGl(): boolean {
  return document.createElement("canvas").getContext("webgl2") !== null;
}

class Panel implements Viewer {
  readonly element: HTMLElement;
  readonly provenance: Model["provenance"];
  onLook: ((look: Look) => void) | null = null;
  private readonly frame: HTMLElement;
  private readonly where = h("p", { class: "viewer-where visually-hidden", "aria-live": "polite" });
  private readonly watcher: ResizeObserver;
  private readonly turnButton: HTMLButtonElement;
  private readonly stop = new AbortController();
  private home: Orbit;
  private orbit: Orbit;
  private request = 0;
  private speech = 0;
  private turning = false;

  constructor(
    model: Model,
    readonly facts: Facts,
    private readonly drawing: Drawing,
    options: Options,
  ) {
    this.provenance = model.provenance;
    this.home = framing(facts.low, facts.high, 1);
    this.orbit = this.home;
    this.turnButton = tool("turn", "Turn around", () => this.turn(!this.turning));
    this.frame = this.stage(describe(options.label, facts, mainColors(model)));
    this.element = h("div", { class: "viewer" }, this.frame, this.tools(), this.where, this.floorNote());
    drawing.setMode("lit");
    this.watcher = new ResizeObserver(() => this.resize());
    this.watcher.observe(this.frame);
    const calm = window.matchMedia("(prefers-reduced-motion: reduce)").matches;
    if (options.turn && !calm && drawing.modes.includes("wireframe")) this.turn(true);
  }

  follow(look: Look): void {
    this.turn(false);
    const { azimuth, elevation, zoom } = look;
    this.orbit = { ...this.orbit, azimuth, elevation, distance: this.home.distance / zoom };
    this.redraw();
  }

  destroy(): void {
    this.stop.abort();
    this.watcher.disconnect();
    cancelAnimationFrame(this.request);
    window.clearTimeout(this.speech);
    this.turning = false;
    this.drawing.dispose();
    this.element.remove();
  }

  private stage(description: string): HTMLElement {
    const { canvas } = this.drawing;
    canvas.setAttribute("aria-hidden", "true");
    const how = "Use mouse, touch or arrow keys to turn it, plus and minus to zoom, Home to reset.";
    const frame = h("div", { class: "viewer-frame", tabindex: "0", role: "application", "aria-label": `${description} ${how}` });
    frame.append(canvas);
    const signal = this.stop.signal;
    frame.addEventListener("keydown", (event) => this.key(event), { signal });
    frame.addEventListener("wheel", (event) => this.wheel(event), { passive: false, signal });
    frame.addEventListener("dblclick", () => this.look(this.home), { signal });
    this.pointers(frame, signal);
    return frame;
  }

  private tools(): HTMLElement {
    const group = h("div", { class: "segments", role: "radiogroup", "aria-label": "Shading" });
    for (const mode of Object.keys(MODES) as Mode[]) {
      const able = this.drawing.modes.includes(mode);
      const input = h("input", { type: "radio", name: `mode-${serial}`, value: mode, disabled: !able, checked: mode === "lit" });
      input.addEventListener("change", () => this.shade(mode));
      const why = able ? "" : mode === "uv" && this.drawing.modes.includes("wireframe") ? "this model has no UVs" : "needs WebGL";
      group.append(h("label", why ? { title: why } : {}, input, h("span", {}, MODES[mode])));
    }
    serial += 1;
    const grid = tool("grid", "Grid", () => {
      const visible = grid.getAttribute("aria-pressed") !== "true";
      grid.setAttribute("aria-pressed", String(visible));
      this.drawing.setGrid(visible);
      this.redraw();
    });
    grid.setAttribute("aria-pressed", "true");
    this.turnButton.setAttribute("aria-pressed", "false");
    const reset = tool("reset", "Reset the view", () => this.look(this.home));
    const large = tool("expand", "Full screen", () => void this.frame.requestFullscreen());
    const round = h("div", { class: "viewer-buttons" }, this.turnButton, grid, reset, document.fullscreenEnabled && large);
    return h("div", { class: "viewer-tools" }, group, round);
  }

  private floorNote(): HTMLElement | null {
    const plain = !this.drawing.modes.includes("wireframe");
    const text = plain ? "Drawn without WebGL: arrow keys or dragging turn it." : `Grid ${length(cellMm(this.facts.sizeMm))}`;
    return h("p", { class: "viewer-note" }, text);
  }

  private shade(mode: Mode): void {
    this.drawing.setMode(mode);
    this.redraw();
  }

  private resize(): void {
    const { clientWidth, clientHeight } = this.frame;
    if (!clientWidth || !clientHeight) return;
    this.drawing.resize(clientWidth, clientHeight);
    const untouched = this.orbit === this.home;
    this.home = framing(this.facts.low, this.facts.high, clientWidth / clientHeight);
    if (untouched) this.orbit = this.home;
    this.redraw();
  }

  private look(orbit: Orbit): void {
    this.turn(false);
    this.orbit = orbit;
    this.redraw();
    this.tell();
    window.clearTimeout(this.speech);
    this.speech = window.setTimeout(() => fill(this.where, `Seen ${spoken(this.orbit)}.`), 500);
  }

  private tell(): void {
    const { azimuth, elevation, distance } = this.orbit;
    this.onLook?.({ azimuth, elevation, zoom: this.home.distance / distance });
  }

  private redraw(): void {
    cancelAnimationFrame(this.request);
    this.request = requestAnimationFrame(() => this.drawing.draw(this.orbit));
  }

  /** One slow turn, ended by any touch. */
  private turn(on: boolean): void {
    if (this.turning === on) return;
    this.turning = on;
    this.turnButton.setAttribute("aria-pressed", String(on));
    if (!on) return;
    const start = performance.now();
    const from = this.orbit;
    const tick = (now: number): void => {
      if (!this.turning) return;
      const share = (now - start) / 1000 / TURN_SECONDS;
      this.orbit = turned({ ...this.orbit, azimuth: from.azimuth }, 2 * Math.PI * share, 0);
      this.drawing.draw(this.orbit);
      this.tell();
      if (share >= 1) this.turn(false);
      else this.request = requestAnimationFrame(tick);
    };
    this.request = requestAnimationFrame(tick);
  }

  private key(event: KeyboardEvent): void {
    const next = keyed(this.orbit, event, this.home);
    if (!next) return;
    event.preventDefault();
    this.look(next);
  }

  /** The wheel zooms where the model has the focus; elsewhere it scrolls the page as ever. */
  private wheel(event: WheelEvent): void {
    if (document.activeElement !== this.frame && !event.ctrlKey) return;
    event.preventDefault();
    this.look(zoomed(this.orbit, Math.exp(event.deltaY * 0.0015), this.home));
  }

  private pointers(frame: HTMLElement, signal: AbortSignal): void {
    const held = new Map<number, PointerEvent>();
    frame.addEventListener("pointerdown", (event) => {
      frame.setPointerCapture(event.pointerId);
      held.set(event.pointerId, event);
      this.turn(false);
    }, { signal });
    for (const end of ["pointerup", "pointercancel"] as const) {
      frame.addEventListener(end, (event) => held.delete(event.pointerId), { signal });
    }
    frame.addEventListener("contextmenu", (event) => event.preventDefault(), { signal });
    frame.addEventListener("pointermove", (event) => {
      const before = held.get(event.pointerId);
      if (!before) return;
      const other = [...held.values()].find((pointer) => pointer.pointerId !== event.pointerId);
      this.look(dragged(this.orbit, this.home, before, event, other, frame.clientHeight));
      held.set(event.pointerId, event);
    }, { signal });
  }
}

let serial = 0;

/** A drag turns, with the right button or Shift it moves; two fingers move and zoom. */
function dragged(
  orbit: Orbit,
  home: Orbit,
  before: PointerEvent,
  now: PointerEvent,
  other: PointerEvent | undefined,
  height: number,
): Orbit {
  const [dx, dy] = [(now.clientX - before.clientX) / height, (now.clientY - before.clientY) / height];
  if (other) {
    const apart = (event: PointerEvent): number => Math.hypot(event.clientX - other.clientX, event.clientY - other.clientY) || 1;
    return zoomed(panned(orbit, -dx / 2, dy / 2), apart(before) / apart(now), home);
  }
  if (now.shiftKey || now.buttons & 2) return panned(orbit, -dx, dy);
  return turned(orbit, -dx * Math.PI, dy * Math.PI);
}

/** The standpoint after a key, or null where the key means nothing here. */
export function keyed(orbit: Orbit, event: Pick<KeyboardEvent, "key" | "shiftKey">, home: Orbit): Orbit | null {
  const move = event.shiftKey;
  switch (event.key) {
    case "ArrowLeft":
      return move ? panned(orbit, -0.05, 0) : turned(orbit, -STEP, 0);
    case "ArrowRight":
      return move ? panned(orbit, 0.05, 0) : turned(orbit, STEP, 0);
    case "ArrowUp":
      return move ? panned(orbit, 0, 0.05) : turned(orbit, 0, STEP);
    case "ArrowDown":
      return move ? panned(orbit, 0, -0.05) : turned(orbit, 0, -STEP);
    case "+":
    case "=":
      return zoomed(orbit, 0.9, home);
    case "-":
      return zoomed(orbit, 1 / 0.9, home);
    case "Home":
      return home;
    default:
      return null;
  }
}

/** The text alternative: what it is, how large, how fine, which colours, whether closed. */
export function describe(label: string, facts: Facts, colors: readonly string[] | null): string {
  const closed = facts.watertight ? "watertight" : "not watertight";
  const color = colors?.length ? `, mainly ${colors.join(" and ")}` : "";
  return `3D model: ${label}. ${dimensions(facts.sizeMm)}, ${facts.faces.toLocaleString("en")} faces, ${closed}${color}.`;
}

/** The badges: what was measured on the file, and what its licences say. */
export function badges(facts: Facts): HTMLElement {
  const sale = { yes: "Commercial use: yes", no: "Commercial use: no", unknown: "Commercial use: unknown" };
  return h(
    "ul",
    { class: "badges" },
    badge(facts.watertight, facts.watertight ? "Watertight" : "Not watertight"),
    badge(facts.commercialUse === "yes", sale[facts.commercialUse], facts.licences.join(", ")),
  );
}

function badge(good: boolean, text: string, title = ""): HTMLElement {
  const symbol = icon(good ? "check" : "warn");
  return h("li", { class: good ? "badge good" : "badge warn", title: title || null }, symbol, text);
}

function tool(name: Parameters<typeof icon>[0], label: string, act: () => void): HTMLButtonElement {
  return h("button", { type: "button", class: "tool", "aria-label": label, title: label, onclick: act }, icon(name));
}
