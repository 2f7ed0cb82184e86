// A server that others can reach asks for its token once; it keeps the answer in a cookie that scripts cannot read.

import { fill, h } from "../dom";
import { type Api, Refused } from "./api";

/** Resolves when this browser may use the server. */
export async function signedIn(api: Api, place: HTMLElement): Promise<void> {
  const session = await api.session();
  if (!session.required || session.authorized) return;
  await new Promise<void>((resolve) => {
    const input = h("input", { id: "token", type: "password", autocomplete: "current-password", required: true });
    const problem = h("p", { class: "problem", role: "alert" });
    const form = h("form", { class: "card signin" });
    form.append(
      h("h2", {}, "This server asks for its token"),
      h("p", { class: "hint" }, "It was printed when the server started."),
      h("label", { class: "field-label", for: "token" }, "Token"),
      input,
      h("button", { type: "submit", class: "button primary" }, "Open"),
      problem,
    );
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      api.signIn(input.value).then(resolve, (error: unknown) => {
        if (!(error instanceof Refused)) throw error;
        fill(problem, error.status === 401 ? "That is not the token." : error.message);
      });
    });
    fill(place, form);
    input.focus();
  });
  fill(place);
}
