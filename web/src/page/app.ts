// The page: puts its parts together and keeps the address in step with what is shown.

import { fill, h } from "../dom";
import { Api, type Job, Refused, type Request, type System, type Upload } from "./api";
import { composer, type Order } from "./composer";
import { FINAL } from "./events";
import { history } from "./history";
import type { Actions } from "./pane";
import { signedIn } from "./signin";
import { Stage } from "./stage";
import { themeButton } from "./theme";
import { readAddress, usualTimes, writeAddress } from "./view";
import { announcer } from "./words";

const POLL = 4000; // milliseconds between looks at the list while something is being made

class App {
  private readonly api = new Api();
  private readonly spoken = h("div", { class: "visually-hidden", role: "status", "aria-live": "polite" });
  private readonly banner = h("div", { class: "banner", role: "status", hidden: true });
  private readonly main = h("main", {});
  private readonly composer = composer((order) => void this.order(order));
  private readonly history = history(this.api, { open: (ids) => void this.open(ids), more: () => void this.older() });
  private readonly stage: Stage;
  private readonly announce = announcer();
  private readonly uploads = new Map<string, readonly Upload[]>();
  private systems: readonly System[] = [];
  private jobs: readonly Job[] = [];
  private cursor: string | null = null;
  private shown: readonly string[] = [];
  private timer = 0;

  constructor() {
    const software = new URLSearchParams(location.search).get("viewer") === "still";
    const actions: Actions = {
      again: (job, changes) => void this.again(job, changes),
      reuse: (job) => this.reuse(job),
      remove: (job) => void this.remove(job),
      open: (job) => void this.open([job.id]),
      changed: (job) => this.changed(job),
      systems: () => this.systems,
    };
    this.stage = new Stage(this.api, actions, software);
  }

  async start(): Promise<void> {
    document.body.append(header(), this.banner, this.main, this.spoken);
    await this.reach(() => signedIn(this.api, this.main));
    fill(this.main, h("div", { class: "columns" }, this.composer.element, this.stage.element), this.history.element);
    this.drops();
    window.addEventListener("hashchange", () => void this.restore());
    document.addEventListener("visibilitychange", () => document.hidden || void this.look());
    await this.reach(async () => {
      this.systems = await this.api.systems();
      this.composer.setSystems(this.systems);
      await this.look();
    });
    await this.restore();
  }

  /** Do something that needs the server, again and again until it answers. */
  private async reach(act: () => Promise<void>): Promise<void> {
    for (;;) {
      try {
        await act();
        this.banner.hidden = true;
        return;
      } catch (error) {
        if (!(error instanceof Refused)) throw error;
        this.tell(error);
        await new Promise((resolve) => setTimeout(resolve, 2000));
      }
    }
  }

  private tell(error: Refused): void {
    fill(this.banner, h("strong", {}, error.message), ` ${error.hint}`);
    this.banner.hidden = false;
  }

  private async order(order: Order): Promise<void> {
    this.composer.setBusy(true);
    try {
      const jobs: Job[] = [];
      for (let i = 0; i < order.count; i++) {
        const { seed } = order.request;
        const request = seed === undefined ? order.request : { ...order.request, seed: (seed + i) % 2 ** 32 };
        jobs.push(await this.submit(request, order.uploads));
      }
      await this.put(jobs);
    } catch (error) {
      if (!(error instanceof Refused)) throw error;
      this.composer.say(error.message, error.hint);
    } finally {
      this.composer.setBusy(false);
    }
  }

  private async submit(request: Request, uploads: readonly Upload[]): Promise<Job> {
    const job = await this.api.submit(request, uploads, crypto.randomUUID());
    this.uploads.set(job.id, uploads);
    return job;
  }

  /** The same prompt once more. Files live as long as the tab: after that they are asked for again, all else is kept. */
  private async again(job: Job, changes: Request): Promise<void> {
    const uploads = changes.text || changes.job ? [] : this.uploads.get(job.id);
    if (!uploads) {
      this.reuse({ ...job, request: changes });
      this.composer.say("Choose the file again.", "This page was opened anew since; all other settings are as they were.");
      return;
    }
    try {
      await this.put([await this.submit(changes, uploads)]);
    } catch (error) {
      if (!(error instanceof Refused)) throw error;
      this.composer.say(error.message, error.hint);
    }
  }

  private reuse(job: Job): void {
    this.composer.reuse(job.request);
    this.composer.element.scrollIntoView({ block: "start" });
    this.composer.element.querySelector<HTMLElement>("[role=tab][aria-selected=true]")?.focus();
  }

  private async remove(job: Job): Promise<void> {
    try {
      await this.api.remove(job.id);
    } catch (error) {
      if (!(error instanceof Refused)) throw error;
      return this.tell(error);
    }
    this.jobs = this.jobs.filter((one) => one.id !== job.id);
    this.list();
    await this.open(this.shown.filter((id) => id !== job.id));
  }

  /** Show jobs just made or fetched. */
  private async put(jobs: readonly Job[]): Promise<void> {
    for (const job of jobs) this.merge(job);
    this.list();
    this.shown = jobs.map((job) => job.id);
    writeAddress(this.shown);
    this.stage.show(jobs);
    this.history.select(this.shown);
    for (const job of jobs) this.say(job);
    this.schedule();
  }

  private async open(ids: readonly string[]): Promise<void> {
    try {
      await this.put(await Promise.all(ids.map((id) => this.api.job(id))));
      if (ids.length) this.stage.element.scrollIntoView({ block: "nearest" });
    } catch (error) {
      if (!(error instanceof Refused)) throw error;
      if (error.status !== 404) return this.tell(error);
      await this.put([]);
    }
  }

  private async restore(): Promise<void> {
    const ids = readAddress(location.hash);
    if (ids.join() !== this.shown.join()) await this.open(ids);
  }

  private changed(job: Job): void {
    this.merge(job);
    this.list();
    this.say(job);
  }

  private say(job: Job): void {
    const words = this.announce(job);
    if (words) fill(this.spoken, words);
  }

  private merge(job: Job): void {
    const known = this.jobs.some((one) => one.id === job.id);
    this.jobs = known ? this.jobs.map((one) => (one.id === job.id ? job : one)) : [job, ...this.jobs];
  }

  private list(): void {
    this.history.show(this.jobs, this.cursor !== null);
    this.history.select(this.shown);
    this.composer.setUsual(usualTimes(this.jobs));
  }

  /** Look at the newest jobs, and again soon while any of them lives. */
  private async look(): Promise<void> {
    const page = await this.api.jobs();
    const fresh = new Map(page.jobs.map((job) => [job.id, job]));
    const older = this.jobs.filter((job) => !fresh.has(job.id) && this.jobs.length > page.jobs.length && this.cursor !== null);
    if (this.jobs.length === 0) this.cursor = page.next;
    this.jobs = [...page.jobs, ...older];
    this.list();
    this.schedule();
  }

  private schedule(): void {
    window.clearTimeout(this.timer);
    const live = this.jobs.some((job) => !FINAL.includes(job.state));
    if (live) this.timer = window.setTimeout(() => void this.reach(() => this.look()), POLL);
  }

  private async older(): Promise<void> {
    const page = await this.api.jobs(this.cursor);
    this.cursor = page.next;
    const known = new Set(this.jobs.map((job) => job.id));
    this.jobs = [...this.jobs, ...page.jobs.filter((job) => !known.has(job.id))];
    this.list();
  }

  private drops(): void {
    document.addEventListener("dragover", (event) => {
      event.preventDefault();
      document.body.classList.add("dragging");
    });
    document.addEventListener("dragleave", (event) => {
      if (!event.relatedTarget) document.body.classList.remove("dragging");
    });
    document.addEventListener("drop", (event) => {
      event.preventDefault();
      document.body.classList.remove("dragging");
      if (event.dataTransfer?.files.length) this.composer.take([...event.dataTransfer.files]);
    });
    document.addEventListener("paste", (event) => {
      if (event.clipboardData?.files.length) this.composer.take([...event.clipboardData.files]);
    });
  }
}

function header(): HTMLElement {
  const skip = h("a", { class: "skip", href: "#stage" }, "Skip to the model");
  skip.addEventListener("click", (event) => {
    event.preventDefault();
    document.getElementById("stage")?.focus();
  });
  const name = h("a", { class: "brand", href: "#" }, h("img", { src: "icon.svg", alt: "", width: "28", height: "28" }), "anyform");
  const line = h("span", { class: "tagline" }, "Any prompt in, a checked 3D model out, on your own machine");
  return h("header", { class: "top" }, skip, h("h1", {}, name), line, themeButton());
}

void new App().start();
