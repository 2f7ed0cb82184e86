// Elements are built, never parsed: no markup string exists in this program, so nothing a user typed can become markup.

type Child = Node | string | number | null | undefined | false;
type Value = string | number | boolean | null | undefined | ((event: never) => void);

/** An element. `class`, `data-…`, `aria-…` become attributes, `on…` listeners, booleans present or absent attributes. */
export function h<K extends keyof HTMLElementTagNameMap>(
  tag: K,
  attributes: Record<string, Value> = {},
  ...children: Child[]
): HTMLElementTagNameMap[K] {
  const element = document.createElement(tag);
  apply(element, attributes);
  append(element, children);
  return element;
}

/** Replace what a parent holds; absent children are skipped. */
export function fill(parent: Element, ...children: Child[]): void {
  parent.replaceChildren();
  append(parent, children);
}

/** A 24 × 24 line icon from path data, hidden from screen readers: the text beside it speaks. */
export function icon(name: keyof typeof ICONS): SVGSVGElement {
  const svg = document.createElementNS(SVG, "svg");
  for (const [key, value] of Object.entries(STROKES)) svg.setAttribute(key, value);
  const path = document.createElementNS(SVG, "path");
  path.setAttribute("d", ICONS[name]);
  svg.append(path);
  return svg;
}

const SVG = "http://www.w3.org/2000/svg";
const STROKES = {
  viewBox: "0 0 24 24",
  class: "icon",
  "aria-hidden": "true",
  fill: "none",
  stroke: "currentColor",
  "stroke-width": "1.8",
  "stroke-linecap": "round",
  "stroke-linejoin": "round",
};

export const ICONS = {
  text: "M5 6V5h14v1M12 5v14M9.5 19h5",
  image: "M4 5h16v14H4zM4 16l5-5 4 4 3-3 4 4M15.5 9.2h.01",
  sketch: "M4 20l1.2-4.6L16.6 4a2 2 0 0 1 2.8 0l.6.6a2 2 0 0 1 0 2.8L8.6 18.8zM14 6.6l3.4 3.4",
  audio: "M12 3.5a2.8 2.8 0 0 1 2.8 2.8v5a2.8 2.8 0 0 1-5.6 0v-5A2.8 2.8 0 0 1 12 3.500zM6 11a6 6 0 0 0 12 0M12 17v3.500",
  points: "M6 7h.01M12 5h.01M18 8h.01M8 12h.01M14 11h.01M19 14h.01M5 17h.01M11 18h.01M16 19h.01",
  voxels: "M12 3l7.500 4.200v9L12 20.500 4.500 16.200v-9zM4.500 7.200 12 11.500l7.500-4.300M12 11.500v9",
  views: "M3.500 8.500h3l1.500-2.500h5l1.500 2.500h3v9h-14zM10.500 10.200a2.800 2.800 0 1 1 0 5.600 2.800 2.800 0 0 1 0-5.600zM20.500 6.500v8",
  depths: "M4 19h16M6 15h12M8 11h8M10 7h4",
  asset: "M12 3l7.500 4.200v9L12 20.500 4.500 16.200v-9z",
  download: "M12 4v11M7.500 10.500 12 15l4.500-4.500M5 19.500h14",
  undo: "M8 5 4 9l4 4M4 9h10a5.500 5.500 0 0 1 0 11h-3",
  trash: "M5 7h14M10 7V4.500h4V7M7 7l.8 12.500h8.400L17 7",
  reset: "M4.500 12a7.500 7.500 0 1 0 2.500-5.600M4.500 4v4.500H9",
  turn: "M4 12c0-2 3.600-3.500 8-3.500s8 1.500 8 3.500-3.600 3.500-8 3.500M14.500 13l-2.500 2.500 2.500 2.500",
  grid: "M4 4h16v16H4zM4 9.300h16M4 14.700h16M9.300 4v16M14.700 4v16",
  expand: "M9 4H4v5M15 4h5v5M9 20H4v-5M15 20h5v-5",
  check: "M5 12.500 10 17.500 19.500 7",
  warn: "M12 4 21 19.500H3zM12 10v4.500M12 17.200h.01",
  stop: "M6.500 6.500h11v11h-11z",
  sun: "M12 8a4 4 0 1 1 0 8 4 4 0 0 1 0-8zM12 2.500v2M12 19.500v2M2.500 12h2M19.500 12h2M5.300 5.300l1.400 1.400M17.300 17.300l1.400 1.400M5.300 18.700l1.400-1.400M17.300 6.700l1.400-1.400",
  compare: "M4 5h6.500v14H4zM13.500 5H20v14h-6.500z",
  dice: "M5 5h14v14H5zM9 9h.01M15 15h.01M12 12h.01",
  plus: "M12 5v14M5 12h14",
  close: "M6 6l12 12M18 6 6 18",
} as const;

function apply(element: HTMLElement, attributes: Record<string, Value>): void {
  for (const [key, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (typeof value === "function") element.addEventListener(key.slice(2), value as unknown as EventListener);
    else if (value === true) element.setAttribute(key, "");
    else if (key === "value") (element as HTMLInputElement).value = String(value);
    else element.setAttribute(key, String(value));
  }
}

function append(parent: Element, children: Child[]): void {
  for (const child of children) {
    if (child === null || child === undefined || child === false) continue;
    parent.append(child instanceof Node ? child : String(child));
  }
}
