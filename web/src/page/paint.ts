// A surface to draw on by mouse, pen, finger or keys. It holds one layer of coverage (ink of a sketch, object of a
// mask) as strokes over a first state, so that each stroke can be taken back.

import { fill, h, icon } from "../dom";

export interface Stroke {
  readonly erase: boolean;
  readonly size: number; // pixels of the layer
  readonly points: readonly (readonly [number, number])[];
}

export interface Look {
  readonly width: number;
  readonly height: number;
  readonly label: string;
  readonly pens: readonly [string, string]; // what drawing and erasing are called
  readonly size: number;
  /** Draw the layer for the eye. */
  show(context: CanvasRenderingContext2D, layer: HTMLCanvasElement): void;
}

export class Paint {
  readonly element: HTMLElement;
  readonly layer = document.createElement("canvas");
  onChange: (() => void) | null = null;
  private readonly canvas: HTMLCanvasElement;
  private readonly spoken = h("p", { class: "visually-hidden", "aria-live": "polite" });
  private readonly picks: HTMLInputElement[] = [];
  private readonly slider: HTMLInputElement;
  private strokes: Stroke[] = [];
  private live: { erase: boolean; size: number; points: [number, number][] } | null = null;
  private cursor: [number, number];
  private start: HTMLCanvasElement | null = null;

  constructor(private readonly look: Look) {
    this.layer.width = look.width;
    this.layer.height = look.height;
    this.cursor = [look.width / 2, look.height / 2];
    const how = "Draw with mouse, pen or finger. Keys: arrows move, space puts the pen down or up, E switches, Z takes back.";
    this.canvas = h("canvas", { class: "paint", tabindex: "0", role: "application", "aria-label": `${look.label}. ${how}` });
    this.canvas.width = look.width;
    this.canvas.height = look.height;
    this.slider = h("input", { type: "range", min: "2", max: "64", value: look.size, "aria-label": "Brush size" });
    this.element = h("div", { class: "paint-box" }, this.canvas, this.tools(), this.spoken);
    this.listen();
    this.replay();
  }

  get isUntouched(): boolean {
    return this.strokes.length === 0;
  }

  /** Begin from this coverage (white where covered), forgetting all strokes; null = from nothing. */
  begin(first: HTMLCanvasElement | null): void {
    this.start = first;
    this.strokes = [];
    this.replay();
    this.onChange?.();
  }

  undo(): void {
    this.strokes.pop();
    this.replay();
    this.onChange?.();
  }

  clear(): void {
    this.begin(this.start);
  }

  /** The layer over a ground, as a PNG. */
  async png(ground: string, ink: string): Promise<Blob> {
    const canvas = document.createElement("canvas");
    canvas.width = this.look.width;
    canvas.height = this.look.height;
    const context = drawing(canvas);
    context.drawImage(tinted(this.layer, ink), 0, 0);
    context.globalCompositeOperation = "destination-over";
    context.fillStyle = ground;
    context.fillRect(0, 0, canvas.width, canvas.height);
    return new Promise((resolve, reject) =>
      canvas.toBlob((blob) => (blob ? resolve(blob) : reject(new Error("the drawing cannot be saved"))), "image/png"),
    );
  }

  private tools(): HTMLElement {
    const group = h("div", { class: "segments", role: "radiogroup", "aria-label": "Brush" });
    const name = `pen-${serial++}`;
    this.look.pens.forEach((pen, i) => {
      const input = h("input", { type: "radio", name, checked: i === 0 });
      this.picks.push(input);
      group.append(h("label", {}, input, h("span", {}, pen)));
    });
    const undo = h("button", { type: "button", class: "tool", "aria-label": "Take back", title: "Take back (Z)" }, icon("undo"));
    undo.addEventListener("click", () => this.undo());
    const clear = h("button", { type: "button", class: "tool", "aria-label": "Start over", title: "Start over" }, icon("trash"));
    clear.addEventListener("click", () => this.clear());
    return h("div", { class: "paint-tools" }, group, this.slider, undo, clear);
  }

  private get erasing(): boolean {
    return this.picks[1]?.checked ?? false;
  }

  private listen(): void {
    const { canvas } = this;
    canvas.addEventListener("pointerdown", (event) => {
      canvas.setPointerCapture(event.pointerId);
      this.down(this.at(event));
    });
    canvas.addEventListener("pointermove", (event) => {
      if (this.live && event.buttons) for (const one of coalesced(event)) this.move(this.at(one));
    });
    for (const end of ["pointerup", "pointercancel"] as const) canvas.addEventListener(end, () => this.up());
    canvas.addEventListener("keydown", (event) => this.key(event));
    canvas.addEventListener("focus", () => this.show());
    canvas.addEventListener("blur", () => {
      this.up();
      this.show();
    });
  }

  private at(event: PointerEvent): [number, number] {
    const box = this.canvas.getBoundingClientRect();
    return [
      ((event.clientX - box.left) / box.width) * this.look.width,
      ((event.clientY - box.top) / box.height) * this.look.height,
    ];
  }

  private key(event: KeyboardEvent): void {
    const step = Math.max(4, Number(this.slider.value) / 2);
    const moves: Record<string, [number, number]> = {
      ArrowLeft: [-step, 0],
      ArrowRight: [step, 0],
      ArrowUp: [0, -step],
      ArrowDown: [0, step],
    };
    const by = moves[event.key];
    const key = event.key.toLowerCase();
    if (by) this.nudge(by);
    else if (key === " ") this.toggle();
    else if (key === "e") this.swap();
    else if (key === "z") this.undo();
    else return;
    event.preventDefault();
  }

  private nudge(by: [number, number]): void {
    this.cursor = [clamp(this.cursor[0] + by[0], this.look.width), clamp(this.cursor[1] + by[1], this.look.height)];
    if (this.live) this.move([...this.cursor]);
    else this.show();
  }

  private toggle(): void {
    if (this.live) this.up();
    else this.down([...this.cursor]);
    fill(this.spoken, this.live ? "Pen down" : "Pen up");
  }

  private swap(): void {
    const next = this.picks[this.erasing ? 0 : 1];
    if (next) next.checked = true;
    fill(this.spoken, this.look.pens[this.erasing ? 1 : 0]);
  }

  private down(point: [number, number]): void {
    this.live = { erase: this.erasing, size: Number(this.slider.value), points: [point] };
    this.cursor = point;
    apply(this.layer, this.live);
    this.show();
  }

  private move(point: [number, number]): void {
    if (!this.live) return;
    const last = this.live.points.at(-1)!;
    this.live.points.push(point);
    this.cursor = point;
    apply(this.layer, { ...this.live, points: [last, point] });
    this.show();
  }

  private up(): void {
    if (!this.live) return;
    this.strokes.push(this.live);
    this.live = null;
    this.onChange?.();
  }

  private replay(): void {
    const context = drawing(this.layer);
    context.clearRect(0, 0, this.layer.width, this.layer.height);
    if (this.start) context.drawImage(this.start, 0, 0);
    for (const stroke of this.strokes) apply(this.layer, stroke);
    this.show();
  }

  private show(): void {
    const context = drawing(this.canvas);
    context.clearRect(0, 0, this.canvas.width, this.canvas.height);
    this.look.show(context, this.layer);
    if (document.activeElement !== this.canvas || !this.canvas.matches(":focus-visible")) return;
    const [x, y] = this.cursor;
    context.strokeStyle = "#1a73e8";
    context.lineWidth = 3;
    context.beginPath();
    context.arc(x, y, Math.max(6, Number(this.slider.value) / 2), 0, 2 * Math.PI);
    context.stroke();
  }
}

/** A copy of a layer in one colour. */
export function tinted(layer: HTMLCanvasElement, color: string): HTMLCanvasElement {
  const copy = document.createElement("canvas");
  copy.width = layer.width;
  copy.height = layer.height;
  const context = drawing(copy);
  context.drawImage(layer, 0, 0);
  context.globalCompositeOperation = "source-in";
  context.fillStyle = color;
  context.fillRect(0, 0, copy.width, copy.height);
  return copy;
}

export function drawing(canvas: HTMLCanvasElement): CanvasRenderingContext2D {
  const context = canvas.getContext("2d", { willReadFrequently: true });
  if (!context) throw new Error("this browser has no canvas");
  return context;
}

let serial = 0;

function apply(layer: HTMLCanvasElement, stroke: Stroke): void {
  const context = drawing(layer);
  context.save();
  context.globalCompositeOperation = stroke.erase ? "destination-out" : "source-over";
  context.strokeStyle = "#fff";
  context.lineWidth = stroke.size;
  context.lineCap = context.lineJoin = "round";
  context.beginPath();
  const [first, ...rest] = stroke.points;
  context.moveTo(first![0], first![1]);
  if (rest.length === 0) context.lineTo(first![0] + 0.01, first![1]);
  for (const point of rest) context.lineTo(point[0], point[1]);
  context.stroke();
  context.restore();
}

function coalesced(event: PointerEvent): PointerEvent[] {
  const all = event.getCoalescedEvents();
  return all.length ? all : [event];
}

function clamp(value: number, most: number): number {
  return Math.max(0, Math.min(most, value));
}
