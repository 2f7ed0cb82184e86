// @vitest-environment jsdom
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";

import { h } from "../src/dom";
import { Api, type Job, Refused, refusal } from "../src/page/api";
import { advanced, follow } from "../src/page/events";
import { kindOf } from "../src/page/files";
import { fromAlpha, fromPlainBackground, share } from "../src/page/mask";
import { missing } from "../src/page/panel_views";
import { moved } from "../src/page/tabs";
import { following } from "../src/page/theme";
import { address, readAddress, usualTimes } from "../src/page/view";
import { encodeWav } from "../src/page/wav";
import { ago, announcer, bytes, duration, share as done, standing, title } from "../src/page/words";
import { crc32, zip } from "../src/page/zip";

const JOB: Job = {
  id: "a".repeat(26),
  state: "queued",
  created: "2026-11-21T10:00:00Z",
  started: null,
  finished: null,
  position: 3,
  stage: "",
  step: 0,
  steps: 0,
  eta_s: null,
  message: "",
  preview: 0,
  request: { kind: "text", text: "a mug", quality: "draft", seed: 7 },
  result: null,
  error: null,
};

describe("elements", () => {
  it("never parse what a user typed", () => {
    const node = h("p", { title: "\"><script>x</script>" }, "<img src=x onerror=alert(1)>");
    expect(node.children).toHaveLength(0);
    expect(node.textContent).toBe("<img src=x onerror=alert(1)>");
  });
});

describe("words", () => {
  it("durations", () => {
    expect([0, 59.4, 60, 125, 3600, 4200].map(duration)).toEqual(["0 s", "59 s", "1 min", "2 min 5 s", "1 h", "1 h 10 min"]);
  });

  it("say where a job stands", () => {
    expect(standing(JOB)).toBe("Number 3 in line");
    expect(standing({ ...JOB, position: 1 })).toBe("Next in line");
    const running = { ...JOB, state: "running" as const, stage: "denoise", step: 3, steps: 10, eta_s: 4.2 };
    expect(standing(running)).toBe("Denoise, step 3 of 10, about 4 s left");
    expect(standing({ ...running, steps: 0, eta_s: null, stage: "" })).toBe("Getting ready");
    expect(done(running)).toBeCloseTo(0.3);
    expect(done(JOB)).toBeNull();
  });

  it("reach a screen reader at new stages and each tenth, not at each step", () => {
    const say = announcer();
    const spoken: (string | null)[] = [say(JOB)];
    for (let step = 0; step <= 100; step++) spoken.push(say({ ...JOB, state: "running", stage: "denoise", step, steps: 100 }));
    expect(spoken.filter(Boolean)).toHaveLength(1 + 11);
    expect(spoken[1]).toBe("a mug: Denoise, 0 percent.");
    const failed = { ...JOB, state: "failed" as const, error: { code: "gate_failed", message: "it is open", hint: "Try another seed." } };
    expect(say(failed)).toBe("a mug: it is open. Try another seed.");
  });

  it("name prompts without text by their kind", () => {
    expect(title({ kind: "points" })).toBe("Point cloud");
    expect(title({})).toBe("A model");
  });

  it("tell time and size", () => {
    const now = new Date("2026-11-21T12:00:00Z");
    expect([ago("2026-11-21T11:59:30Z", now), ago("2026-11-21T11:15:00Z", now), ago(JOB.created, now)]).toEqual(["just now", "45 min ago", "2 h ago"]);
    expect([bytes(999), bytes(876_852), bytes(2_340_000)]).toEqual(["999 B", "877 kB", "2.3 MB"]);
  });

  it("usual times are medians of finished jobs of that quality", () => {
    const finished = (seconds: number): Job => ({ ...JOB, state: "done", result: { seconds } as Job["result"] });
    expect(usualTimes([finished(1), finished(100), finished(9), JOB])).toEqual({ draft: "9 s" });
  });
});

describe("events", () => {
  it("move a job on", () => {
    const running = advanced(JOB, "running", { attempt: 1 });
    expect(running).toMatchObject({ state: "running", position: null });
    const on = advanced(running, "progress", { stage: "denoise", step: 2, steps: 9, eta_s: 5, message: "" });
    expect(on).toMatchObject({ stage: "denoise", step: 2, state: "running" });
    expect(advanced(on, "preview", { preview: 4 }).preview).toBe(4);
    expect(advanced(on, "failed", { ...JOB, state: "failed" }).state).toBe("failed");
    expect(advanced(on, "unheard of", {})).toBe(on);
  });

  class Source extends EventTarget {
    static all: Source[] = [];
    readyState = 1;
    onopen: (() => void) | null = null;
    onerror: (() => void) | null = null;
    closed = false;
    constructor(readonly address: string) {
      super();
      Source.all.push(this);
    }
    close(): void {
      this.closed = true;
    }
    send(name: string, data: unknown): void {
      this.dispatchEvent(new MessageEvent(name, { data: JSON.stringify(data) }));
    }
    fail(state: number): void {
      this.readyState = state;
      this.onerror?.();
    }
  }

  beforeEach(() => {
    vi.useFakeTimers();
    vi.stubGlobal("EventSource", { CLOSED: 2 });
    Source.all = [];
  });
  afterEach(() => {
    vi.useRealTimers();
    vi.unstubAllGlobals();
  });

  function followed(answers: (() => Promise<Job>)[]): { seen: Job[]; line: boolean[]; asked: () => number } {
    const seen: Job[] = [];
    const line: boolean[] = [];
    const job = vi.fn(() => (answers.shift() ?? (() => Promise.reject(new Refused(0, "x", "x", ""))))());
    const api = { address: (path: string) => `v1/${path}`, job } as unknown as Api;
    const listener = { job: (one: Job) => seen.push(one), connected: (up: boolean) => line.push(up) };
    follow(api, JOB, listener, (at) => new Source(at) as unknown as EventSource);
    return { seen, line, asked: () => job.mock.calls.length };
  }

  it("follow a job to its end and then close", () => {
    const { seen } = followed([]);
    const source = Source.all[0]!;
    expect(source.address).toBe(`v1/jobs/${JOB.id}/events`);
    source.send("running", { attempt: 1 });
    source.send("done", { ...JOB, state: "done" });
    expect(seen.map((job) => job.state)).toEqual(["running", "done"]);
    expect(source.closed).toBe(true);
  });

  it("leave short breaks to the browser", () => {
    const { line, asked } = followed([]);
    Source.all[0]!.fail(0);
    vi.advanceTimersByTime(60_000);
    expect(line).toEqual([false]);
    expect(asked()).toBe(0);
  });

  it("come back with growing pauses where the browser gave up", async () => {
    const down = (): Promise<Job> => Promise.reject(new Refused(0, "x", "x", ""));
    const { seen, line, asked } = followed([down, down, () => Promise.resolve({ ...JOB, state: "running" })]);
    Source.all[0]!.fail(2);
    await vi.advanceTimersByTimeAsync(1000);
    await vi.advanceTimersByTimeAsync(2000);
    expect(asked()).toBe(2);
    await vi.advanceTimersByTimeAsync(3999);
    expect(asked()).toBe(2);
    await vi.advanceTimersByTimeAsync(1);
    expect(asked()).toBe(3);
    expect(seen.at(-1)?.state).toBe("running");
    expect(line).toEqual([false, true]);
    expect(Source.all).toHaveLength(2);
  });

  it("learn of an end that came while the line was broken, and connect no more", async () => {
    const { seen } = followed([() => Promise.resolve({ ...JOB, state: "done" })]);
    Source.all[0]!.fail(2);
    await vi.advanceTimersByTimeAsync(1000);
    expect(seen.at(-1)?.state).toBe("done");
    expect(Source.all).toHaveLength(1);
  });
});

describe("the server's answers", () => {
  it("become a sentence and a hint", async () => {
    const body = JSON.stringify({ detail: "the queue is full", hint: "Wait.", code: "queue_full" });
    const full = new Response(body, { status: 429, headers: { "Content-Type": "application/problem+json", "Retry-After": "12" } });
    expect(await refusal(full)).toMatchObject({ status: 429, code: "queue_full", message: "the queue is full", hint: "Wait. Try again in 12 s." });
    const proxy = new Response("<html>bad gateway</html>", { status: 502, headers: { "Content-Type": "text/html" } });
    expect(await refusal(proxy)).toMatchObject({ status: 502, message: "The server answered 502." });
  });

  it("send the prompt without `kind` and every file in its field", async () => {
    const fetched = vi.fn(async (_path: string, _init: RequestInit) => new Response("{}", { status: 202 }));
    vi.stubGlobal("fetch", fetched);
    await new Api().submit({ kind: "image", seed: 3 }, [{ name: "image", file: new Blob(["x"]), filename: "x.png" }], "key");
    const [path, init] = fetched.mock.calls[0]!;
    const body = init.body as FormData;
    expect(path).toBe("v1/jobs");
    expect(body.get("prompt")).toBe('{"seed":3}');
    expect((body.get("image") as File).name).toBe("x.png");
    expect((init.headers as Record<string, string>)["Idempotency-Key"]).toBe("key");
    vi.unstubAllGlobals();
  });
});

describe("files", () => {
  it.each([
    [["a.PNG"], "image"],
    [["a.ply"], "points"],
    [["a.json"], "voxels"],
    [["a.wav"], "audio"],
    [["a.png", "b.png", "transforms.json"], "views"],
    [["a.zip"], "views"],
    [["a.exe"], null],
    [["a.png", "b.exe"], null],
    [["noend"], null],
    [[], null],
  ])("%j is %s", (names, kind) => {
    expect(kindOf(names as string[])).toBe(kind);
  });

  it("views say what they lack", () => {
    const files = (...names: string[]): { name: string }[] => names.map((name) => ({ name }));
    expect(missing(files())).toMatch(/first/);
    expect(missing(files("a.png", "t.json"))).toMatch(/1 picture/);
    expect(missing(files("front.png", "side.png"))).toMatch(/transforms\.json/);
    expect(missing(files("003.png", "006.png"))).toBeNull();
    expect(missing(files("front.png", "side.png", "transforms.json"))).toBeNull();
    expect(missing(files("a.zip", "b.png"))).toMatch(/either/);
  });

  it("ZIP: checksums and layout", async () => {
    expect(crc32(new TextEncoder().encode("123456789"))).toBe(0xcbf43926);
    const bytes = await blobBytes(zip([{ name: "a.txt", bytes: Uint8Array.of(1, 2, 3) }, { name: "ü.txt", bytes: Uint8Array.of() }]));
    const view = new DataView(bytes.buffer);
    const end = bytes.length - 22;
    expect(view.getUint32(0, true)).toBe(0x04034b50);
    expect(view.getUint32(end, true)).toBe(0x06054b50);
    expect(view.getUint16(end + 10, true)).toBe(2);
    const start = view.getUint32(end + 16, true);
    expect(view.getUint32(start, true)).toBe(0x02014b50);
    expect(start + view.getUint32(end + 12, true)).toBe(end);
  });

  it("WAV: header and clipping", async () => {
    const bytes = await blobBytes(encodeWav(Float32Array.of(0, 0.5, -2), 16000));
    const view = new DataView(bytes.buffer);
    expect(bytes).toHaveLength(50);
    expect([view.getUint32(24, true), view.getUint16(34, true), view.getUint32(40, true)]).toEqual([16000, 16, 6]);
    expect([view.getInt16(44, true), view.getInt16(46, true), view.getInt16(48, true)]).toEqual([0, 16384, -32767]);
  });
});

describe("masks", () => {
  const [width, height] = [20, 16];
  const picture = (ground: number): Uint8ClampedArray => {
    const rgba = new Uint8ClampedArray(4 * width * height).fill(255);
    for (let i = 0; i < width * height; i++) {
      const [x, y] = [i % width, Math.floor(i / width)];
      const inside = x >= 5 && x < 15 && y >= 4 && y < 12;
      const hole = x >= 9 && x < 11 && y >= 7 && y < 9;
      rgba.fill(inside && !hole ? 40 : ground, 4 * i, 4 * i + 3);
    }
    return rgba;
  };

  it("a plain background is found by what it reaches from the border", () => {
    const mask = fromPlainBackground(picture(250), width, height)!;
    expect(share(mask)).toBeCloseTo(80 / 320, 9); // the hole is not reached: it stays with the object
  });

  it("no guess where the border is busy, or where all would be background", () => {
    const busy = picture(250);
    for (let x = 0; x < width; x += 2) busy.fill(90, 4 * x, 4 * x + 3);
    for (let y = 0; y < height; y += 2) busy.fill(90, 4 * y * width, 4 * y * width + 3);
    expect(fromPlainBackground(busy, width, height)).toBeNull();
    expect(fromPlainBackground(picture(40), width, height)).toBeNull();
  });

  it("the picture's own transparency wins", () => {
    const rgba = picture(250);
    expect(fromAlpha(rgba)).toBeNull();
    rgba[3] = 0;
    expect(fromAlpha(rgba)?.[0]).toBe(0);
  });
});

describe("small parts", () => {
  it("tabs follow the ARIA keys", () => {
    expect([moved(6, "ArrowRight", 7), moved(0, "ArrowLeft", 7), moved(3, "Home", 7), moved(3, "End", 7), moved(3, "x", 7)]).toEqual([0, 6, 0, 6, null]);
  });

  it("the address keeps what is shown", () => {
    for (const ids of [[], ["a1"], ["a1", "b2"]]) expect(readAddress(address(ids))).toEqual(ids);
    expect(readAddress("#job=../../x")).toEqual([]);
    expect(readAddress("#compare=a,b,c,d,e")).toHaveLength(4);
  });

  it("the theme goes round", () => {
    expect([following("auto"), following("light"), following("dark")]).toEqual(["light", "dark", "auto"]);
  });
});

function blobBytes(blob: Blob): Promise<Uint8Array<ArrayBuffer>> {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(new Uint8Array(reader.result as ArrayBuffer));
    reader.onerror = () => reject(new Error("unreadable"));
    reader.readAsArrayBuffer(blob);
  });
}
