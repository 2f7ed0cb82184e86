// Say it, or choose a recording.

import { fill, h, icon } from "../dom";
import { dropzone } from "./dropzone";
import { ACCEPT } from "./files";
import type { Panel } from "./panel";
import { LONGEST, record, type Recording } from "./recorder";

export function audioPanel(): Panel {
  let sound: Blob | null = null;
  let name = "speech.wav";
  let recording: Recording | null = null;
  let timer = 0;
  const meter = h("meter", { min: "0", max: "1", value: "0", "aria-label": "Loudness" });
  const status = h("p", { class: "hint", role: "status" }, `Up to ${LONGEST} seconds.`);
  const player = h("audio", { controls: true, hidden: true });
  const button = h("button", { type: "button", class: "button record", onclick: () => void toggle() });
  const zone = dropzone({
    id: "file-audio",
    label: "…or choose a sound",
    hint: "WAV, FLAC, OGG or MP3.",
    accept: ACCEPT.audio!,
    take: (files) => panel.take!(files),
  });
  const panel: Panel = {
    kind: "audio",
    label: "Voice",
    icon: "audio",
    element: h("div", {}, h("div", { class: "recorder" }, button, meter, status), player, zone.element),
    onChange: null,
    missing: () => (recording ? "Stop the recording first." : sound ? null : "Record or choose a sound first."),
    take(files) {
      const file = files[0];
      if (!file) return;
      zone.show([file]);
      keep(file, file.name);
    },
    async collect() {
      if (!sound) throw new Error("there is no sound");
      return { request: { kind: "audio" }, uploads: [{ name: "audio", file: sound, filename: name }] };
    },
  };

  function keep(blob: Blob, filename: string): void {
    sound = blob;
    name = filename;
    URL.revokeObjectURL(player.src);
    player.src = URL.createObjectURL(blob);
    player.hidden = false;
    paint();
    panel.onChange?.();
  }

  async function toggle(): Promise<void> {
    if (recording) return finish(recording);
    try {
      recording = await record();
    } catch (error) {
      if (!(error instanceof Error)) throw error;
      fill(status, refusalOf(error));
      return;
    }
    paint();
    const start = Date.now();
    const tick = (): void => {
      if (!recording) return;
      const seconds = (Date.now() - start) / 1000;
      meter.value = recording.level();
      fill(status, `Recording, ${Math.floor(seconds)} s`);
      if (seconds >= LONGEST) void finish(recording);
      else timer = window.setTimeout(tick, 100);
    };
    tick();
    panel.onChange?.();
  }

  async function finish(running: Recording): Promise<void> {
    window.clearTimeout(timer);
    recording = null;
    meter.value = 0;
    paint();
    fill(status, "Reading the recording…");
    try {
      keep(await running.stop(), "speech.wav");
      fill(status, "Listen to it, or record again.");
      zone.show([]);
    } catch (error) {
      if (!(error instanceof Error)) throw error;
      fill(status, "The recording could not be read: record again.");
    }
  }

  function paint(): void {
    fill(button, icon(recording ? "stop" : "audio"), recording ? "Stop" : sound ? "Record again" : "Record");
    button.setAttribute("aria-pressed", String(recording !== null));
  }
  paint();
  return panel;
}

function refusalOf(error: Error): string {
  if (error.name === "NotAllowedError") return "The microphone is not allowed here: allow it in the browser, or choose a file.";
  if (error.name === "NotFoundError") return "No microphone was found: choose a file instead.";
  return `Recording does not work here (${error.name}): choose a file instead.`;
}
