// Where the camera stands: azimuth from +z towards +x, elevation above the horizon, distance from a target.
// Angles in radians, lengths in the model's metres.

export interface Orbit {
  readonly azimuth: number;
  readonly elevation: number;
  readonly distance: number;
  readonly target: readonly [number, number, number];
}

export const FOV_Y = (32 * Math.PI) / 180;
const POLE = (88 * Math.PI) / 180;

/** The first look at a box: from the front right and a little above, the whole box in the picture. */
export function framing(low: readonly number[], high: readonly number[], aspect: number): Orbit {
  const target = [0, 1, 2].map((k) => (low[k]! + high[k]!) / 2) as unknown as Orbit["target"];
  const radius = Math.hypot(high[0]! - low[0]!, high[1]! - low[1]!, high[2]! - low[2]!) / 2 || 1;
  const half = Math.min(FOV_Y / 2, Math.atan(Math.tan(FOV_Y / 2) * aspect));
  return { azimuth: Math.PI / 6, elevation: Math.PI / 9, distance: (radius / Math.sin(half)) * 0.9, target };
}

export function turned(orbit: Orbit, azimuth: number, elevation: number): Orbit {
  const up = Math.max(-POLE, Math.min(POLE, orbit.elevation + elevation));
  return { ...orbit, azimuth: wrapped(orbit.azimuth + azimuth), elevation: up };
}

/** Nearer (factor < 1) or farther, between a twentieth and twenty times the home distance. */
export function zoomed(orbit: Orbit, factor: number, home: Orbit): Orbit {
  const distance = Math.max(home.distance / 20, Math.min(home.distance * 20, orbit.distance * factor));
  return { ...orbit, distance };
}

/** Move the target by fractions of the picture's height: right and up as the viewer sees them. */
export function panned(orbit: Orbit, right: number, up: number): Orbit {
  const height = 2 * orbit.distance * Math.tan(FOV_Y / 2);
  const { side, top } = axes(orbit);
  const target = [0, 1, 2].map((k) => orbit.target[k]! + height * (right * side[k]! + up * top[k]!));
  return { ...orbit, target: target as unknown as Orbit["target"] };
}

export function eye(orbit: Orbit): [number, number, number] {
  const back = axes(orbit).back;
  return [0, 1, 2].map((k) => orbit.target[k]! + orbit.distance * back[k]!) as [number, number, number];
}

/** The camera's own axes in the world: to its right, upwards, and backwards (towards the viewer). */
export function axes(orbit: Orbit): { side: number[]; top: number[]; back: number[] } {
  const [sa, ca] = [Math.sin(orbit.azimuth), Math.cos(orbit.azimuth)];
  const [se, ce] = [Math.sin(orbit.elevation), Math.cos(orbit.elevation)];
  return { side: [ca, 0, -sa], top: [-sa * se, ce, -ca * se], back: [sa * ce, se, ca * ce] };
}

/** Where one stands, in words: "from the upper front right". */
export function spoken(orbit: Orbit): string {
  const height = orbit.elevation > 0.28 ? "upper " : orbit.elevation < -0.28 ? "lower " : "";
  const names = ["front", "front right", "right", "back right", "back", "back left", "left", "front left"];
  const sector = Math.round(wrapped(orbit.azimuth) / (Math.PI / 4));
  return `from the ${height}${names[(sector + 8) % 8]}`;
}

function wrapped(angle: number): number {
  return angle - 2 * Math.PI * Math.round(angle / (2 * Math.PI));
}
