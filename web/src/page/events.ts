// Follow one job over server-sent events. EventSource resumes by itself after a short break (Last-Event-ID); where it
// gives up, because a server or proxy answered with an error, we look again with growing pauses.

import type { Api, Job, State } from "./api";

type Progress = Pick<Job, "stage" | "step" | "steps" | "eta_s" | "message">;

export interface Follower {
  close(): void;
}

export interface Listener {
  /** The job after each event. */
  job(job: Job): void;
  /** Whether the line to the server stands. */
  connected(up: boolean): void;
}

export const FINAL: readonly State[] = ["done", "failed", "cancelled"];
const PAUSES = [1000, 2000, 4000, 8000, 15000]; // milliseconds

/** A job after an event; events that say nothing about it leave it as it is. */
export function advanced(job: Job, name: string, data: unknown): Job {
  const said = data as Record<string, unknown>;
  switch (name) {
    case "queued":
    case "position":
      return { ...job, state: name === "queued" ? "queued" : job.state, position: said["position"] as number };
    case "running":
      return { ...job, state: "running", position: null, started: job.started ?? new Date().toISOString() };
    case "interrupted":
      return { ...job, state: "interrupted", message: String(said["message"] ?? "") };
    case "progress":
      return { ...job, state: "running", position: null, ...(said as unknown as Progress) };
    case "preview":
      return { ...job, preview: said["preview"] as number };
    case "done":
    case "failed":
    case "cancelled":
      return said as unknown as Job;
    default:
      return job;
  }
}

const NAMES = ["queued", "position", "running", "interrupted", "progress", "preview", ...FINAL];

export function follow(
  api: Api,
  start: Job,
  listener: Listener,
  open: (address: string) => EventSource = (address) => new EventSource(address),
): Follower {
  let job = start;
  let source: EventSource | null = null;
  let timer = 0;
  let attempt = 0;
  let closed = false;

  function close(): void {
    closed = true;
    window.clearTimeout(timer);
    source?.close();
  }

  function tell(next: Job): void {
    job = next;
    listener.job(job);
    if (FINAL.includes(job.state)) close();
  }

  function connect(): void {
    const stream = open(api.address(`jobs/${start.id}/events`));
    source = stream;
    stream.onopen = () => {
      attempt = 0;
      listener.connected(true);
    };
    for (const name of NAMES) {
      stream.addEventListener(name, (event) => {
        if (!closed) tell(advanced(job, name, JSON.parse((event as MessageEvent<string>).data)));
      });
    }
    stream.onerror = () => {
      if (closed) return;
      listener.connected(false);
      if (stream.readyState === EventSource.CLOSED) later();
    };
  }

  function later(): void {
    timer = window.setTimeout(look, PAUSES[Math.min(attempt++, PAUSES.length - 1)]);
  }

  async function look(): Promise<void> {
    try {
      const seen = await api.job(start.id);
      if (closed) return;
      listener.connected(true);
      tell(seen);
      if (!closed) connect();
    } catch {
      if (!closed) later();
    }
  }

  connect();
  return { close };
}
