// One job on the stage: its progress while it lives, its model when it is done, its reason when it is not.

import { fill, h, icon } from "../dom";
import type * as ViewerModule from "../viewer/entry";
import { type Api, type Job, Refused, type Request, type System } from "./api";
import { FINAL, follow, type Follower } from "./events";
import { downloads, facts, seedLine } from "./result";
import { share, standing, STATES, title } from "./words";

type Viewer = Awaited<ReturnType<typeof ViewerModule.mount>>;

export interface Actions {
  again(job: Job, changes: Request): void;
  reuse(job: Job): void;
  remove(job: Job): void;
  open(job: Job): void;
  changed(job: Job): void;
  systems(): readonly System[];
}

export interface PaneOptions {
  readonly compact: boolean;
  readonly software: boolean;
}

// the viewer is a file of its own, fetched when the first model is there
const VIEWER = "./viewer.js";

export class Pane {
  readonly element = h("article", { class: "pane" });
  viewer: Viewer | null = null;
  onViewer: (() => void) | null = null;
  private follower: Follower | null = null;
  private shown = "";
  private live: LiveView | null = null;
  private gone = false;

  constructor(
    private readonly api: Api,
    public job: Job,
    private readonly actions: Actions,
    private readonly options: PaneOptions,
  ) {
    this.element.classList.toggle("compact", options.compact);
    this.show(job);
    if (FINAL.includes(job.state)) return;
    this.follower = follow(api, job, {
      job: (next) => {
        this.show(next);
        actions.changed(next);
      },
      connected: (up) => this.live?.connected(up),
    });
  }

  destroy(): void {
    this.gone = true;
    this.follower?.close();
    this.viewer?.destroy();
    this.element.remove();
  }

  private show(job: Job): void {
    if (this.gone) return;
    this.job = job;
    this.element.setAttribute("aria-label", `${title(job.request)}: ${STATES[job.state]}`);
    this.element.dataset["state"] = job.state;
    if (!FINAL.includes(job.state)) {
      if (!this.live) {
        this.live = new LiveView(this.api, job);
        fill(this.element, this.heading(), this.live.element);
      }
      this.live.update(job);
      return;
    }
    if (this.shown === job.state) return;
    this.shown = job.state;
    this.live = null;
    if (job.state === "done") void this.showModel(job);
    else this.showEnd(job);
  }

  private heading(): HTMLElement {
    const { job } = this;
    const open = h("button", { type: "button", class: "button small", onclick: () => this.actions.open(job) }, "Open");
    return h("header", { class: "pane-head" }, h("h2", {}, title(job.request)), this.options.compact ? open : null);
  }

  private async showModel(job: Job): Promise<void> {
    const place = h("div", { class: "viewer-place", "aria-busy": "true" }, h("p", { class: "hint" }, "Loading the model…"));
    fill(this.element, this.heading(), place);
    try {
      const [module, bytes] = await Promise.all([import(VIEWER) as Promise<typeof ViewerModule>, this.api.glb(job.id)]);
      if (this.gone) return;
      const { compact, software } = this.options;
      const viewer = await module.mount(bytes, { label: title(job.request), turn: !compact, software });
      if (this.gone) return viewer.destroy();
      this.viewer = viewer;
      const about = compact
        ? [seedLine(job), downloads(this.api, job, true)]
        : [facts(job, viewer.facts), downloads(this.api, job, false), this.next(job)];
      fill(this.element, this.heading(), viewer.element, h("div", { class: "about" }, module.badges(viewer.facts), ...about));
      this.onViewer?.();
    } catch (error) {
      if (!(error instanceof Error)) throw error;
      this.showStill(job, error);
    }
  }

  /** The model cannot be drawn: the server's own picture of it, and everything else as ever. */
  private showStill(job: Job, error: Error): void {
    const still = h("img", { class: "still", src: this.api.address(`jobs/${job.id}/preview.webp`), alt: `${title(job.request)}, seen from four sides` });
    const why = h("p", { class: "hint" }, `The viewer could not show it: ${error.message}`);
    fill(this.element, this.heading(), still, why, h("div", { class: "about" }, downloads(this.api, job, false), this.next(job)));
  }

  private showEnd(job: Job): void {
    const failed = job.state === "failed";
    const words = failed
      ? [h("strong", {}, job.error?.message ?? "It failed without a reason."), h("p", {}, job.error?.hint ?? "")]
      : [h("strong", {}, "Cancelled"), h("p", {}, "Nothing was kept of it.")];
    const box = h("div", { class: `end ${failed ? "bad" : ""}` }, icon(failed ? "warn" : "stop"), h("div", {}, ...words));
    fill(this.element, this.heading(), box, this.next(job));
  }

  /** What can be done next with a finished job. */
  private next(job: Job): HTMLElement {
    const { actions } = this;
    const row = h("div", { class: "actions", role: "group", "aria-label": "Next" });
    const button = (name: Parameters<typeof icon>[0], label: string, act: () => void): HTMLButtonElement =>
      h("button", { type: "button", class: "button", onclick: act }, icon(name), label);
    const { seed: _, ...rest } = job.request;
    if (job.state === "done") {
      row.append(button("dice", "Another seed", () => actions.again(job, rest)));
      for (const system of actions.systems().filter((one) => one.refines)) {
        const refined = { job: job.id, system: system.name, quality: job.request.quality ?? "standard" };
        row.append(button("plus", `Refine with ${system.name}`, () => actions.again(job, refined)));
      }
    } else {
      row.append(button("reset", "Try again", () => actions.again(job, job.request)));
      if (job.state === "failed") row.append(button("dice", "With another seed", () => actions.again(job, rest)));
    }
    row.append(button("text", "Use this prompt", () => actions.reuse(job)), this.removeButton(job));
    return row;
  }

  private removeButton(job: Job): HTMLButtonElement {
    const button = h("button", { type: "button", class: "button quiet" }, icon("trash"), "Delete");
    button.addEventListener("click", () => {
      if (button.dataset["sure"]) return this.actions.remove(job);
      button.dataset["sure"] = "yes";
      fill(button, icon("trash"), "Really delete?");
    });
    button.addEventListener("blur", () => {
      delete button.dataset["sure"];
      fill(button, icon("trash"), "Delete");
    });
    return button;
  }
}

/** Queue position, stage, step, time left and the newest preview of a job that is not finished. */
class LiveView {
  readonly element = h("div", { class: "live" });
  private readonly bar = h("progress", { max: "1", "aria-label": "Progress" });
  private readonly words = h("p", { class: "standing" });
  private readonly state = h("span", { class: "state" });
  private readonly line = h("p", { class: "offline", role: "status" });
  private readonly picture = h("img", { class: "preview", alt: "", hidden: true });
  private readonly problem = h("p", { class: "problem", role: "alert" });
  private preview = 0;

  constructor(
    private readonly api: Api,
    job: Job,
  ) {
    const cancel = h("button", { type: "button", class: "button", onclick: () => void this.cancel(job, cancel) }, icon("stop"), "Cancel");
    const hollow = h("div", { class: "preview-place" }, this.picture, h("span", { class: "pulse", "aria-hidden": "true" }));
    fill(this.element, hollow, h("div", { class: "live-words" }, this.state, this.words, this.bar, this.line, this.problem, cancel));
  }

  update(job: Job): void {
    fill(this.state, STATES[job.state]);
    fill(this.words, standing(job));
    const done = share(job);
    if (done === null) this.bar.removeAttribute("value");
    else this.bar.value = done;
    if (job.preview === this.preview) return;
    this.preview = job.preview;
    this.picture.src = this.api.address(`jobs/${job.id}/preview.webp?n=${job.preview}`);
    this.picture.alt = `The shape so far, preview ${job.preview}`;
    this.picture.hidden = false;
  }

  connected(up: boolean): void {
    fill(this.line, up ? "" : "The line to the server is broken. The work goes on; reconnecting…");
  }

  private async cancel(job: Job, button: HTMLButtonElement): Promise<void> {
    button.disabled = true;
    fill(button, icon("stop"), "Cancelling…");
    try {
      await this.api.cancel(job.id);
    } catch (error) {
      if (!(error instanceof Refused)) throw error;
      button.disabled = false;
      fill(button, icon("stop"), "Cancel");
      fill(this.problem, error.message);
    }
  }
}
