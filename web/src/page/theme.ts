// Light, dark, or as the system has it; the choice is kept in this browser.

import { fill, h, icon } from "../dom";

const KEY = "anyform-theme";
const ORDER = ["auto", "light", "dark"] as const;
type Theme = (typeof ORDER)[number];

export function themeButton(): HTMLElement {
  let theme = ORDER.find((one) => one === localStorage.getItem(KEY)) ?? "auto";
  const button = h("button", { type: "button", class: "button small quiet", onclick: () => set(following(theme)) });
  function set(next: Theme): void {
    theme = next;
    localStorage.setItem(KEY, theme);
    if (theme === "auto") delete document.documentElement.dataset["theme"];
    else document.documentElement.dataset["theme"] = theme;
    fill(button, icon("sun"), h("span", { class: "wide-only" }, `Theme: ${theme}`));
    button.setAttribute("aria-label", `Theme: ${theme}. Change it`);
  }
  set(theme);
  return button;
}

export function following(theme: Theme): Theme {
  return ORDER[(ORDER.indexOf(theme) + 1) % ORDER.length]!;
}
