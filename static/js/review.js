// The page on which a reviewer settles a comparison: keys, formulas, and a note that opens ready to write in.

import "app/hotkeys";
import { typeset } from "app/math";

const review = document.querySelector(".review");
typeset(review, review.dataset.katexCss);

const note = review.querySelector("details.note");
note?.addEventListener("toggle", () => note.open && note.querySelector("textarea").focus());
note?.querySelector("textarea").addEventListener("keydown", (event) => {
  if (event.key === "Escape") event.target.blur();
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) event.target.form.requestSubmit();
});
