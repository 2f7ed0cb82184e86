// A picture of one thing, with the mask that says which of its pixels are the thing.

import { fill, h } from "../dom";
import { dropzone } from "./dropzone";
import { ACCEPT } from "./files";
import { fromAlpha, fromPlainBackground, type Mask, share } from "./mask";
import { drawing, Paint, tinted } from "./paint";
import type { Panel } from "./panel";

const LONGEST = 1024; // pixels of the mask editor; the mask is scaled back to the picture's size

interface Loaded {
  readonly file: File;
  readonly width: number;
  readonly height: number;
  readonly paint: Paint;
  readonly guess: Mask | null;
}

export function imagePanel(): Panel {
  let loaded: Loaded | null = null;
  const editor = h("div", { class: "editor" });
  const problem = h("p", { class: "problem", role: "alert" });
  const zone = dropzone({
    id: "file-image",
    label: "Choose a picture, or drop one",
    hint: "PNG, JPEG or WebP of one object. You can mend what counts as the object next.",
    accept: ACCEPT.image!,
    take: (files) => panel.take!(files),
  });
  const panel: Panel = {
    kind: "image",
    label: "Picture",
    icon: "image",
    element: h("div", {}, zone.element, problem, editor),
    onChange: null,
    missing: () => (loaded ? null : "Choose a picture first."),
    take(files) {
      const file = files[0];
      if (file) void open(file);
    },
    async collect() {
      if (!loaded) throw new Error("there is no picture");
      const uploads = [{ name: "image", file: loaded.file, filename: loaded.file.name }];
      if (loaded.guess || !loaded.paint.isUntouched) {
        const file = await scaled(loaded);
        uploads.push({ name: "mask", file: new File([file], "mask.png"), filename: "mask.png" });
      }
      return { request: { kind: "image" }, uploads };
    },
  };

  async function open(file: File): Promise<void> {
    fill(problem);
    try {
      loaded = await load(file);
    } catch (error) {
      if (!(error instanceof Error)) throw error;
      fill(problem, `${file.name} cannot be read as a picture.`);
      return;
    }
    zone.show([file]);
    const { guess, paint } = loaded;
    const found = guess
      ? `The object was found: ${Math.round(100 * share(guess))} % of the picture. Mend it where it is wrong.`
      : "The background is busy: the server will find the object, or paint over the object yourself.";
    fill(editor, h("p", { class: "hint" }, found), paint.element);
    panel.onChange?.();
  }
  return panel;
}

async function load(file: File): Promise<Loaded> {
  const bitmap = await createImageBitmap(file);
  const scale = Math.min(1, LONGEST / Math.max(bitmap.width, bitmap.height));
  const [width, height] = [Math.round(bitmap.width * scale), Math.round(bitmap.height * scale)];
  const picture = document.createElement("canvas");
  picture.width = width;
  picture.height = height;
  drawing(picture).drawImage(bitmap, 0, 0, width, height);
  const pixels = drawing(picture).getImageData(0, 0, width, height).data;
  const guess = fromAlpha(pixels) ?? fromPlainBackground(pixels, width, height);
  const paint = new Paint({
    width,
    height,
    label: "Mask: what is painted is the object",
    pens: ["Keep", "Remove"],
    size: Math.max(8, Math.round(Math.max(width, height) / 24)),
    show: (context, layer) => show(context, layer, picture, guess !== null || !paint?.isUntouched),
  });
  if (guess) paint.begin(covered(guess, width, height));
  return { file, width: bitmap.width, height: bitmap.height, paint, guess };
}

/** The picture, what is not object faded and hatched. */
function show(context: CanvasRenderingContext2D, layer: HTMLCanvasElement, picture: HTMLCanvasElement, masked: boolean): void {
  context.drawImage(picture, 0, 0);
  if (!masked) return;
  const fade = document.createElement("canvas");
  fade.width = layer.width;
  fade.height = layer.height;
  const veil = drawing(fade);
  veil.fillStyle = "#5d35b8";
  veil.fillRect(0, 0, fade.width, fade.height);
  veil.strokeStyle = "#ffffff";
  veil.lineWidth = Math.max(1, fade.width / 300);
  veil.globalAlpha = 0.5;
  const gap = Math.max(8, fade.width / 40);
  for (let x = -fade.height; x < fade.width; x += gap) {
    veil.beginPath();
    veil.moveTo(x, fade.height);
    veil.lineTo(x + fade.height, 0);
    veil.stroke();
  }
  veil.globalAlpha = 1;
  veil.globalCompositeOperation = "destination-out";
  veil.drawImage(layer, 0, 0);
  context.globalAlpha = 0.62;
  context.drawImage(fade, 0, 0);
  context.globalAlpha = 1;
}

function covered(mask: Mask, width: number, height: number): HTMLCanvasElement {
  const canvas = document.createElement("canvas");
  canvas.width = width;
  canvas.height = height;
  const image = new ImageData(width, height);
  mask.forEach((value, i) => image.data.set([255, 255, 255, value], 4 * i));
  drawing(canvas).putImageData(image, 0, 0);
  return canvas;
}

/** The mask at the picture's own size: white object on black. */
function scaled(loaded: Loaded): Promise<Blob> {
  const canvas = document.createElement("canvas");
  canvas.width = loaded.width;
  canvas.height = loaded.height;
  const context = drawing(canvas);
  context.fillStyle = "#000";
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.drawImage(tinted(loaded.paint.layer, "#fff"), 0, 0, canvas.width, canvas.height);
  return new Promise((resolve, reject) =>
    canvas.toBlob((blob) => (blob ? resolve(blob) : reject(new Error("the mask cannot be saved"))), "image/png"),
  );
}
