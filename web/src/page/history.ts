// Everything made so far, kept by the server: it outlives the tab and the server.

import { fill, h } from "../dom";
import type { Api, Job } from "./api";
import { FINAL } from "./events";
import { ago, standing, STATES, title } from "./words";

const MOST_COMPARED = 4;

export interface History {
  readonly element: HTMLElement;
  /** Jobs to show, newest first. */
  show(jobs: readonly Job[], more: boolean): void;
  select(ids: readonly string[]): void;
}

export interface HistoryActions {
  open(ids: readonly string[]): void;
  more(): void;
}

export function history(api: Api, actions: HistoryActions): History {
  const list = h("ul", { class: "cards" });
  const marked = new Set<string>();
  const compare = h("button", { type: "button", class: "button", onclick: () => actions.open([...marked]) });
  const more = h("button", { type: "button", class: "button", onclick: () => actions.more() }, "Show older");
  const empty = h("p", { class: "hint" }, "What you make is kept here, also when you close this page.");
  const head = h("div", { class: "history-head" }, h("h2", {}, "History"), compare);
  const element = h("section", { class: "history", "aria-label": "History" }, head, empty, list, more);
  const cards = new Map<string, Card>();

  function mark(id: string, on: boolean): void {
    if (on) marked.add(id);
    else marked.delete(id);
    refresh();
  }

  function refresh(): void {
    compare.hidden = marked.size < 2;
    fill(compare, `Compare ${marked.size}`);
    for (const [id, card] of cards) card.limit(marked.size >= MOST_COMPARED && !marked.has(id));
  }

  refresh();
  more.hidden = true;
  return {
    element,
    show(jobs, hasMore) {
      empty.hidden = jobs.length > 0;
      more.hidden = !hasMore;
      const ids = new Set(jobs.map((job) => job.id));
      for (const [id, card] of cards) {
        if (ids.has(id)) continue;
        card.element.remove();
        cards.delete(id);
        marked.delete(id);
      }
      jobs.forEach((job, i) => {
        let card = cards.get(job.id);
        if (!card) cards.set(job.id, (card = new Card(api, job, actions, mark)));
        card.update(job);
        if (list.children[i] !== card.element) list.insertBefore(card.element, list.children[i] ?? null);
      });
      refresh();
    },
    select(chosen) {
      for (const [id, card] of cards) card.current(chosen.includes(id));
    },
  };
}

class Card {
  readonly element = h("li", { class: "card-item" });
  private readonly picture = h("img", { class: "thumb", alt: "", loading: "lazy" });
  private readonly state = h("span", { class: "state" });
  private readonly when = h("span", { class: "hint" });
  private readonly button: HTMLButtonElement;
  private readonly box: HTMLInputElement;
  private readonly label: HTMLElement;
  private source = "";

  constructor(
    private readonly api: Api,
    job: Job,
    actions: HistoryActions,
    mark: (id: string, on: boolean) => void,
  ) {
    const name = h("span", { class: "card-title" }, title(job.request));
    this.button = h("button", { type: "button", class: "card-open", onclick: () => actions.open([job.id]) });
    this.button.append(h("span", { class: "thumb-place" }, this.picture), name, h("span", { class: "card-line" }, this.state, this.when));
    this.box = h("input", { type: "checkbox", id: `mark-${job.id}` });
    this.box.addEventListener("change", () => mark(job.id, this.box.checked));
    const said = h("span", { class: "visually-hidden" }, ` ${title(job.request)}, seed ${job.request.seed ?? ""}`);
    this.label = h("label", { class: "check compare-check", for: `mark-${job.id}` }, this.box, "Compare", said);
    this.element.append(this.button, this.label);
  }

  update(job: Job): void {
    this.element.dataset["state"] = job.state;
    fill(this.state, STATES[job.state]);
    this.state.title = standing(job);
    fill(this.when, ago(job.created, new Date()));
    this.label.hidden = job.state !== "done";
    const source = job.state === "done" || job.preview > 0 ? this.api.address(`jobs/${job.id}/preview.webp?n=${FINAL.includes(job.state) ? "last" : job.preview}`) : "";
    this.picture.hidden = !source || (job.state !== "done" && FINAL.includes(job.state));
    if (source && source !== this.source) this.picture.src = source;
    this.source = source;
    this.picture.classList.toggle("four", job.state === "done");
  }

  current(on: boolean): void {
    if (on) this.button.setAttribute("aria-current", "true");
    else this.button.removeAttribute("aria-current");
  }

  limit(full: boolean): void {
    this.box.disabled = full;
  }
}
