import { describe, expect, it } from "vitest";

import { dimensions, isWatertight, length, measure, rights } from "../src/viewer/facts";
import { cellMm, gridLines } from "../src/viewer/floor";
import { parseGlb } from "../src/viewer/glb";
import { axes, eye, framing, FOV_Y, panned, spoken, turned, zoomed } from "../src/viewer/orbit";
import { colorName, mainColors } from "../src/viewer/palette";
import { faceNormals, rasterise } from "../src/viewer/software";
import { cube, glb, keys } from "./shapes";

const dot = (a: readonly number[], b: readonly number[]): number => a.reduce((sum, value, i) => sum + value * b[i]!, 0);

describe("orbit", () => {
  const home = framing([-1, 0, -0.5], [1, 2, 0.5], 4 / 3);

  it("keeps azimuth 0 on +z and grows towards +x, as the rest of anyform does", () => {
    const front = { ...home, azimuth: 0, elevation: 0 };
    expect(eye(front)[2] - front.target[2]).toBeCloseTo(front.distance, 9);
    const right = turned(front, Math.PI / 2, 0);
    expect(eye(right)[0] - right.target[0]).toBeCloseTo(right.distance, 9);
  });

  it("has orthonormal right-handed camera axes everywhere", () => {
    for (let i = 0; i < 50; i++) {
      const { side, top, back } = axes(turned(home, i * 0.37, Math.sin(i)));
      for (const axis of [side, top, back]) expect(dot(axis, axis)).toBeCloseTo(1, 12);
      expect(dot(side, top)).toBeCloseTo(0, 12);
      const cross = [side[1]! * top[2]! - side[2]! * top[1]!, side[2]! * top[0]! - side[0]! * top[2]!, side[0]! * top[1]! - side[1]! * top[0]!];
      expect(dot(cross, back)).toBeCloseTo(1, 12);
    }
  });

  it("never tips over the pole and never zooms out of reach", () => {
    expect(turned(home, 0, 99).elevation).toBeLessThan(Math.PI / 2);
    expect(zoomed(home, 1e-9, home).distance).toBeCloseTo(home.distance / 20, 12);
    expect(zoomed(home, 1e9, home).distance).toBeCloseTo(home.distance * 20, 9);
  });

  it("turns back to where it was after a full turn, and pans by parts of the picture", () => {
    const round = Array.from({ length: 8 }).reduce<typeof home>((orbit) => turned(orbit, Math.PI / 4, 0), home);
    expect(Math.cos(round.azimuth)).toBeCloseTo(Math.cos(home.azimuth), 9);
    const moved = panned(home, 0, 1);
    const by = Math.hypot(...[0, 1, 2].map((k) => moved.target[k]! - home.target[k]!));
    expect(by).toBeCloseTo(2 * home.distance * Math.tan(FOV_Y / 2), 9);
  });

  it("says where one stands", () => {
    const at = (azimuth: number, elevation: number): string => spoken({ ...home, azimuth, elevation });
    expect(at(0, 0)).toBe("from the front");
    expect(at(Math.PI / 2, 0.5)).toBe("from the upper right");
    expect(at(-Math.PI / 2, -0.5)).toBe("from the lower left");
    expect(at(Math.PI, 0)).toBe("from the back");
    expect(at(-Math.PI / 4, 0)).toBe("from the front left");
  });
});

describe("GLB", () => {
  it("reads positions, colours, indices and provenance", () => {
    const model = parseGlb(glb(cube(), { weights: [{ licence: "CC0-1.0", commercial_use: "yes" }] }));
    expect(model.position).toHaveLength(24);
    expect(model.index).toHaveLength(36);
    expect(model.color?.[0]).toBeCloseTo(1, 4);
    expect(rights(model.provenance)).toEqual({ commercialUse: "yes", licences: ["CC0-1.0"] });
  });

  it.each([
    ["no GLB", (bytes: Uint8Array) => bytes.fill(0, 0, 4), /no GLB/],
    ["length lies", (bytes: Uint8Array) => bytes.set([1, 0, 0, 0], 8), /cut off/],
    ["JSON longer than the file", (bytes: Uint8Array) => bytes.set([255, 255, 255, 0], 12), /damaged/],
  ])("refuses %s", (_, spoil, reason) => {
    const bytes = new Uint8Array(glb(cube()));
    spoil(bytes);
    expect(() => parseGlb(bytes.buffer)).toThrow(reason);
  });

  it("refuses counts that the bytes do not hold, before making anything of that size", () => {
    const shape = cube();
    expect(() => parseGlb(glb(shape, null, { count: 2 ** 31 }))).toThrow(/cut off/);
  });

  it("refuses a face whose corner does not exist", () => {
    const shape = cube();
    shape.index[0] = 99;
    expect(() => parseGlb(glb(shape))).toThrow(/without corners/);
  });
});

describe("facts", () => {
  it("measures a box in millimetres", () => {
    const facts = measure(parseGlb(glb(cube([0.4, 0.8, 0.2]))));
    expect(facts.sizeMm.map(Math.round)).toEqual([400, 800, 200]);
    expect(facts).toMatchObject({ faces: 12, vertices: 8, watertight: true, hasUv: false, hasColor: true, commercialUse: "unknown" });
  });

  it("calls a shape open when one face is gone, or turned round", () => {
    const shape = cube();
    expect(isWatertight(shape)).toBe(true);
    expect(isWatertight({ ...shape, index: shape.index.slice(3) })).toBe(false);
    const flipped = Uint32Array.from(shape.index);
    [flipped[0], flipped[1]] = [flipped[1]!, flipped[0]!];
    expect(isWatertight({ ...shape, index: flipped })).toBe(false);
    expect(isWatertight({ ...shape, index: new Uint32Array() })).toBe(false);
  });

  it("sees through seams: corners at one place are one corner", () => {
    const shape = cube();
    const soup = Float32Array.from([...shape.index].flatMap((v) => [...shape.position.slice(3 * v, 3 * v + 3)]));
    expect(isWatertight({ position: soup, index: Uint32Array.from({ length: 36 }, (_, i) => i) })).toBe(true);
  });

  it("gives the strictest licence", () => {
    const weights = (...answers: string[]): Record<string, unknown> => ({
      weights: answers.map((commercial_use) => ({ commercial_use, licence: "L" })),
    });
    expect(rights(weights("yes", "no")).commercialUse).toBe("no");
    expect(rights(weights("yes", "unknown")).commercialUse).toBe("unknown");
    expect(rights(weights()).commercialUse).toBe("unknown");
    expect(rights(null)).toEqual({ commercialUse: "unknown", licences: [] });
  });

  it("writes lengths as people do", () => {
    expect([length(2), length(80.4), length(1200)]).toEqual(["2.0 mm", "80 mm", "1.20 m"]);
    expect(dimensions([412.4, 800, 390])).toBe("412 × 800 × 390 mm");
  });

  it("lays a floor of round cells under the whole model", () => {
    expect([cellMm([1000, 10, 10]), cellMm([80, 1, 1]), cellMm([400, 1, 1])]).toEqual([200, 20, 100]);
    const lines = gridLines({ sizeMm: [1000, 800, 600], low: [-0.5, 0, -0.3], high: [0.5, 0.8, 0.3] });
    expect(Math.min(...keys(lines, 0))).toBeLessThanOrEqual(-0.5);
    expect(new Set(keys(lines, 1))).toEqual(new Set([0]));
    expect(lines.length % 6).toBe(0);
  });
});

describe("colours in words", () => {
  it("names what a person would name", () => {
    const cases: [number, number, number, string][] = [[250, 250, 250, "white"], [10, 10, 10, "black"], [200, 30, 35, "red"], [118, 76, 44, "brown"], [40, 80, 190, "blue"]];
    for (const [r, g, b, name] of cases) expect(colorName(r, g, b)).toBe(name);
  });

  it("says at most two, largest first, and nothing without colours", () => {
    const color = Float32Array.from({ length: 300 }, (_, i) => (i < 210 ? [0.6, 0.01, 0.01][i % 3]! : 0.95));
    expect(mainColors({ color, factor: [1, 1, 1, 1] })).toEqual(["red", "white"]);
    expect(mainColors({ color: null, factor: [1, 1, 1, 1] })).toBeNull();
  });
});

describe("drawing without WebGL", () => {
  const shape = cube();
  const surface = { model: parseGlb(glb(shape)), normals: faceNormals(shape), colors: new Uint8ClampedArray(36).fill(200) };
  const orbit = framing([-0.5, 0, -0.5], [0.5, 1, 0.5], 1);

  it("covers the middle, leaves the corners free", () => {
    const pixels = rasterise(surface, orbit, 64, 64, "unlit");
    expect(pixels[4 * (32 * 64 + 32) + 3]).toBe(255);
    expect(pixels[4 * (32 * 64 + 32)]).toBe(200);
    for (const at of [0, 63, 63 * 64, 64 * 64 - 1]) expect(pixels[4 * at + 3]).toBe(0);
  });

  it("shows the near side: from the front its normal is +z", () => {
    const pixels = rasterise(surface, { ...orbit, azimuth: 0, elevation: 0 }, 65, 65, "normals");
    const middle = [...pixels.slice(4 * (32 * 65 + 32), 4 * (32 * 65 + 32) + 3)];
    expect(middle).toEqual([128, 128, 255]);
  });

  it("draws nothing that is behind the camera", () => {
    const inside = { ...orbit, distance: 1e-3 };
    expect([...rasterise(surface, { ...inside, target: [0, 9, 0] }, 16, 16, "lit")].some(Number.isNaN)).toBe(false);
  });
});
