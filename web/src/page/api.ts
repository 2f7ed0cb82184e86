// The REST API as the page uses it. Every address is relative, so that the server may sit under a sub-path.

export type State = "queued" | "running" | "done" | "failed" | "cancelled" | "interrupted";
export type Kind = "text" | "image" | "sketch" | "audio" | "points" | "voxels" | "views" | "depths";

export interface Request {
  readonly kind?: string;
  readonly text?: string;
  readonly job?: string;
  readonly system?: string;
  readonly refine?: string;
  readonly quality?: string;
  readonly seed?: number;
  readonly faces?: number;
  readonly texture_size?: number;
  readonly size?: string;
  readonly print?: boolean;
}

export interface Job {
  readonly id: string;
  readonly state: State;
  readonly created: string;
  readonly started: string | null;
  readonly finished: string | null;
  readonly position: number | null;
  readonly stage: string;
  readonly step: number;
  readonly steps: number;
  readonly eta_s: number | null;
  readonly message: string;
  readonly preview: number;
  readonly request: Request;
  readonly result: Result | null;
  readonly error: { readonly code: string; readonly message: string; readonly hint: string } | null;
}

export interface Result {
  readonly system: string;
  readonly seed: number;
  readonly quality: string;
  readonly seconds: number;
  readonly size_mm: readonly [number, number, number];
  readonly commercial_use: "yes" | "no" | "unknown";
  readonly reasons: readonly string[];
  readonly credits: readonly string[];
  readonly licences: readonly string[];
  readonly notes: readonly string[];
  readonly formats: Readonly<Record<string, { readonly bytes: number; readonly sha256: string }>>;
}

export interface System {
  readonly name: string;
  readonly accepts: readonly string[];
  readonly refines: boolean;
}

export interface JobPage {
  readonly jobs: readonly Job[];
  readonly next: string | null;
}

/** What the server said no to: a sentence, and what to do about it. */
export class Refused extends Error {
  constructor(
    readonly status: number,
    readonly code: string,
    message: string,
    readonly hint: string,
  ) {
    super(message);
  }
}

export interface Upload {
  readonly name: string; // of the form field: image, mask, sketch, …
  readonly file: Blob;
  readonly filename: string;
}

export class Api {
  constructor(private readonly root: string = "v1/") {}

  submit(request: Request, uploads: readonly Upload[], key: string): Promise<Job> {
    const body = new FormData();
    const { kind: _, ...prompt } = request;
    body.append("prompt", JSON.stringify(prompt));
    for (const upload of uploads) body.append(upload.name, upload.file, upload.filename);
    return this.json("jobs", { method: "POST", body, headers: { "Idempotency-Key": key } });
  }

  job(id: string): Promise<Job> {
    return this.json(`jobs/${id}`);
  }

  jobs(cursor: string | null = null, limit = 24): Promise<JobPage> {
    return this.json(`jobs?limit=${limit}${cursor ? `&cursor=${encodeURIComponent(cursor)}` : ""}`);
  }

  cancel(id: string): Promise<Job> {
    return this.json(`jobs/${id}/cancel`, { method: "POST" });
  }

  async remove(id: string): Promise<void> {
    await this.send(`jobs/${id}`, { method: "DELETE" });
  }

  async systems(): Promise<readonly System[]> {
    return (await this.json<{ systems: readonly System[] }>("models")).systems;
  }

  async glb(id: string): Promise<ArrayBuffer> {
    return (await this.send(`jobs/${id}/asset.glb`)).arrayBuffer();
  }

  session(): Promise<{ required: boolean; authorized: boolean }> {
    return this.json("session");
  }

  async signIn(token: string): Promise<void> {
    const headers = { "Content-Type": "application/json" };
    await this.send("session", { method: "POST", body: JSON.stringify({ token }), headers });
  }

  /** An address for a link, a picture or an event stream. */
  address(path: string): string {
    return this.root + path;
  }

  private async json<T>(path: string, init?: RequestInit): Promise<T> {
    return (await (await this.send(path, init)).json()) as T;
  }

  private async send(path: string, init: RequestInit = {}): Promise<Response> {
    let answer: Response;
    try {
      answer = await fetch(this.root + path, { credentials: "same-origin", ...init });
    } catch (error) {
      if (!(error instanceof TypeError)) throw error;
      throw new Refused(0, "unreachable", "The server does not answer.", "Is it still running? The page keeps trying.");
    }
    if (!answer.ok) throw await refusal(answer);
    return answer;
  }
}

/** A problem+json answer, or the little that a proxy's error page says, as a sentence. */
export async function refusal(answer: Response): Promise<Refused> {
  const wait = answer.headers.get("Retry-After");
  const later = wait ? `Try again in ${wait} s.` : "";
  const kind = answer.headers.get("Content-Type") ?? "";
  if (!kind.startsWith("application/problem+json")) {
    return new Refused(answer.status, "http", `The server answered ${answer.status}.`, later);
  }
  const problem = (await answer.json()) as { detail?: string; title?: string; hint?: string; code?: string };
  const hint = [problem.hint, later].filter(Boolean).join(" ");
  return new Refused(answer.status, problem.code ?? "http", problem.detail ?? problem.title ?? "Refused.", hint);
}
