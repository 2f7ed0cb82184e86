// One way of asking: what every tab of the composer offers.

import type { ICONS } from "../dom";
import type { Kind, Request, Upload } from "./api";

export interface Asked {
  readonly request: Request;
  readonly uploads: readonly Upload[];
}

export interface Panel {
  readonly kind: Kind;
  readonly label: string;
  readonly icon: keyof typeof ICONS;
  readonly element: HTMLElement;
  /** What is still missing, as a sentence; null where one may start. */
  missing(): string | null;
  collect(): Promise<Asked>;
  /** Files dropped on the page, or a job's prompt to begin from. */
  take?(files: File[]): void;
  onChange: (() => void) | null;
}
