// The right side: nothing yet, one job, or up to four beside each other that turn together.

import { fill, h, icon } from "../dom";
import type { Api, Job } from "./api";
import { type Actions, Pane } from "./pane";

export class Stage {
  readonly element = h("section", { class: "stage", id: "stage", "aria-label": "Model", tabindex: "-1" });
  private panes: Pane[] = [];

  constructor(
    private readonly api: Api,
    private readonly actions: Actions,
    private readonly software: boolean,
  ) {
    this.show([]);
  }

  show(jobs: readonly Job[]): void {
    for (const pane of this.panes) pane.destroy();
    const compact = jobs.length > 1;
    this.panes = jobs.map((job) => new Pane(this.api, job, this.actions, { compact, software: this.software }));
    this.element.classList.toggle("several", compact);
    if (jobs.length === 0) return fill(this.element, welcome());
    for (const pane of this.panes) pane.onViewer = () => this.couple();
    fill(this.element, ...this.panes.map((pane) => pane.element));
  }

  /** Each viewer hands its standpoint to the others. */
  private couple(): void {
    const viewers = this.panes.flatMap((pane) => (pane.viewer ? [pane.viewer] : []));
    for (const viewer of viewers) {
      viewer.onLook = (look) => {
        for (const other of viewers) if (other !== viewer) other.follow(look);
      };
    }
  }
}

function welcome(): HTMLElement {
  const steps = [
    ["text", "Ask", "Type a few words, or give a picture, a sketch, your voice, points, voxels or photos."],
    ["turn", "Watch", "See the shape grow. Close the page if you like: the work goes on."],
    ["download", "Take it", "A closed mesh in millimetres, with its licence and its recipe inside."],
  ] as const;
  const list = h("ol", { class: "steps" });
  for (const [name, head, text] of steps) list.append(h("li", {}, icon(name), h("div", {}, h("strong", {}, head), h("span", {}, text))));
  return h("div", { class: "welcome" }, h("h2", {}, "Your model appears here"), list);
}
