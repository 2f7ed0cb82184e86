// What the page says, as pure functions: the same words on the screen and to a screen reader.

import type { Job, Request, State } from "./api";

export const STATES: Record<State, string> = {
  queued: "Waiting",
  running: "Working",
  done: "Done",
  failed: "Failed",
  cancelled: "Cancelled",
  interrupted: "Interrupted",
};

const KINDS: Record<string, string> = {
  text: "Text",
  image: "Picture",
  sketch: "Sketch",
  audio: "Sound",
  points: "Point cloud",
  voxels: "Voxels",
  views: "Photos",
  depths: "Depth maps",
  asset: "A finished model",
};

/** What was asked for, on one line. */
export function title(request: Request): string {
  if (request.text) return request.text;
  return KINDS[request.kind ?? ""] ?? "A model";
}

/** Seconds for people: "8 s", "2 min 5 s", "1 h 10 min". */
export function duration(seconds: number): string {
  const whole = Math.max(0, Math.round(seconds));
  if (whole < 60) return `${whole} s`;
  const minutes = Math.floor(whole / 60);
  if (minutes < 60) return whole % 60 ? `${minutes} min ${whole % 60} s` : `${minutes} min`;
  return minutes % 60 ? `${Math.floor(minutes / 60)} h ${minutes % 60} min` : `${Math.floor(minutes / 60)} h`;
}

/** Where a job stands, in a sentence. */
export function standing(job: Job): string {
  switch (job.state) {
    case "queued":
      return job.position === null || job.position <= 1 ? "Next in line" : `Number ${job.position} in line`;
    case "running": {
      const stage = job.stage ? capital(job.stage) : "Getting ready";
      const steps = job.steps > 0 ? `step ${job.step} of ${job.steps}` : "";
      const left = job.eta_s === null ? "" : `about ${duration(job.eta_s)} left`;
      return [stage, steps, left].filter(Boolean).join(", ");
    }
    case "interrupted":
      return "The server was restarted; the work goes on as soon as it can";
    case "done":
      return job.result ? `Done in ${duration(job.result.seconds)}` : "Done";
    case "failed":
      return job.error?.message ?? "Failed";
    case "cancelled":
      return "Cancelled";
  }
}

/** The share of the work that is done, 0..1, or null where nobody can tell. */
export function share(job: Job): number | null {
  if (job.state === "done") return 1;
  return job.state === "running" && job.steps > 0 ? Math.min(1, job.step / job.steps) : null;
}

/** What a screen reader is told: each new state and stage, and each tenth of the way, nothing else. */
export function announcer(): (job: Job) => string | null {
  let said = "";
  return (job) => {
    const done = share(job);
    const tenth = done === null ? "" : `${Math.floor(done * 10) * 10}`;
    const key = `${job.id} ${job.state} ${job.stage} ${tenth}`;
    if (key === said) return null;
    said = key;
    const percent = job.state === "running" && tenth ? `, ${tenth} percent` : "";
    const hint = job.state === "failed" && job.error?.hint ? ` ${job.error.hint}` : "";
    return `${title(job.request)}: ${job.state === "running" ? capital(job.stage || "working") + percent : standing(job)}.${hint}`;
  };
}

/** How long ago: "just now", "5 min ago", "3 h ago", then the day. */
export function ago(iso: string, now: Date): string {
  const seconds = (now.getTime() - new Date(iso).getTime()) / 1000;
  if (seconds < 60) return "just now";
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ago`;
  if (seconds < 86400) return `${Math.floor(seconds / 3600)} h ago`;
  return new Date(iso).toLocaleDateString(undefined, { day: "numeric", month: "short", year: "numeric" });
}

/** Bytes for people, in powers of ten as file managers show them. */
export function bytes(count: number): string {
  if (count < 1000) return `${count} B`;
  if (count < 1e6) return `${(count / 1e3).toFixed(0)} kB`;
  return `${(count / 1e6).toFixed(1)} MB`;
}

export function capital(text: string): string {
  return text.charAt(0).toUpperCase() + text.slice(1);
}
