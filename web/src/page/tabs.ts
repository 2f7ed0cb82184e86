// Tabs as the ARIA practices describe them: one tab stop, arrow keys between the tabs, one panel shown.

import { h, icon } from "../dom";
import type { Panel } from "./panel";

export interface Tabs {
  readonly element: HTMLElement;
  selected(): number;
  select(index: number): void;
}

export function tablist(label: string, panels: readonly Panel[], changed: () => void): Tabs {
  let selected = 0;
  const tabs = panels.map((panel, i) =>
    h(
      "button",
      { type: "button", role: "tab", id: `tab-${panel.kind}`, "aria-controls": `panel-${panel.kind}`, class: "tab", onclick: () => select(i) },
      icon(panel.icon),
      h("span", {}, panel.label),
    ),
  );
  const bodies = panels.map((panel) =>
    h("div", { role: "tabpanel", id: `panel-${panel.kind}`, "aria-labelledby": `tab-${panel.kind}`, class: "tabpanel" }, panel.element),
  );
  const row = h("div", { role: "tablist", "aria-label": label, class: "tabs" }, ...tabs);

  function select(index: number): void {
    selected = index;
    tabs.forEach((tab, i) => {
      tab.setAttribute("aria-selected", String(i === index));
      tab.tabIndex = i === index ? 0 : -1;
      bodies[i]!.hidden = i !== index;
    });
    changed();
  }

  row.addEventListener("keydown", (event) => {
    const next = moved(selected, event.key, tabs.length);
    if (next === null) return;
    event.preventDefault();
    select(next);
    tabs[next]?.focus();
  });
  tabs.forEach((tab, i) => {
    tab.setAttribute("aria-selected", String(i === 0));
    tab.tabIndex = i === 0 ? 0 : -1;
    bodies[i]!.hidden = i !== 0;
  });
  return { element: h("div", {}, row, ...bodies), selected: () => selected, select };
}

/** The tab that a key leads to, or null for keys that are none of ours. */
export function moved(from: number, key: string, count: number): number | null {
  if (key === "ArrowRight") return (from + 1) % count;
  if (key === "ArrowLeft") return (from + count - 1) % count;
  if (key === "Home") return 0;
  return key === "End" ? count - 1 : null;
}
