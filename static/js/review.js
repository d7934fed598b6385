// The page on which a reviewer settles a comparison: keys, formulas, and a note that opens ready to write in.

import "app/hotkeys";
import { typeset } from "app/math";

const review = document.querySelector(".review");
typeset(review, review.dataset.katexCss);

const note = review.querySelector("details.note");
const text = note?.querySelector("textarea");
// At once, and not on `toggle`, which comes later: what is typed after the key belongs into the note.
note?.querySelector("summary").addEventListener("click", (event) => {
  if (note.open) return;
  event.preventDefault();
  note.open = true;
  text.focus();
});
text?.addEventListener("keydown", (event) => {
  if (event.key === "Escape") text.blur();
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) text.form.requestSubmit();
});

if (review.querySelector("[data-ranked]")) {
  const { Ranking } = await import("app/ranking");
  // Nothing else is asked here, so that a finished order hands the digits on to nothing.
  const answering = Object.assign(new EventTarget(), { goOn() {} });
  new Ranking(review, document.getElementById("verdict"), answering).open({ node: review, isRanked: true });
}
