// What the address says is shown, and what the past says about time.

import type { Job } from "./api";
import { duration } from "./words";

/** "#job=a" or "#compare=a,b" -> ids; anything else -> none. */
export function readAddress(hash: string): readonly string[] {
  const found = /^#(?:job|compare)=([0-9a-z,]+)$/.exec(hash);
  return found ? found[1]!.split(",").filter(Boolean).slice(0, 4) : [];
}

export function address(ids: readonly string[]): string {
  if (ids.length === 0) return "#";
  return ids.length === 1 ? `#job=${ids[0]}` : `#compare=${ids.join(",")}`;
}

export function writeAddress(ids: readonly string[]): void {
  if (location.hash !== address(ids)) window.history.pushState(null, "", address(ids));
}

/** How long each quality took of late on this server, in words: the median of finished jobs. */
export function usualTimes(jobs: readonly Job[]): Record<string, string> {
  const seconds = new Map<string, number[]>();
  for (const { state, request, result } of jobs) {
    if (state !== "done" || !result || !request.quality) continue;
    seconds.set(request.quality, [...(seconds.get(request.quality) ?? []), result.seconds]);
  }
  const median = (values: number[]): number => values.sort((a, b) => a - b)[Math.floor(values.length / 2)]!;
  return Object.fromEntries([...seconds].map(([quality, values]) => [quality, duration(median(values))]));
}
