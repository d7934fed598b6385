// The page for writing a response: what there is on one side, the person's text on the other, and what they change,
// word by word. Saving is the form's own; a draft stays in this browser until the server has the text.

import { splitWords } from "app/diff";
import { Drafts } from "app/drafts";
import { changes, clock, drawChanges, Stopwatch } from "app/editing";
import "app/hotkeys";
import { keepLease } from "app/lease";
import { typeset } from "app/math";
import { fetchHeaders } from "app/outbox";
import { toast } from "app/toast";
import { page, say } from "app/words";

const main = document.querySelector("main.rewrite");
const form = document.getElementById("rewrite");
const { text, start, seconds } = form.elements;
const figures = form.querySelector("[data-figures]");
const changesBox = form.querySelector("[data-changes]");
const id = `rewrite-${main.dataset.task}`;
const drafts = new Drafts(main.dataset.person);
let watch = new Stopwatch();
let frame = 0;

const original = () => (start.value === "" ? "" : page.texts[Number(start.value)]);

function draw() {
  const time = clock(watch.seconds);
  const found = changes(original(), text.value);
  drawChanges(changesBox, found);
  if (start.value === "") figures.textContent = say("own", { words: splitWords(text.value).length, time });
  else figures.textContent = text.value === original() ? say("unchanged") : say("changed", { ...found, time });
}

function changed() {
  seconds.value = String(Math.round(watch.touch()));
  drafts.keep(id, () => ({ text: text.value, start: start.value, seconds: watch.seconds }));
  cancelAnimationFrame(frame);
  frame = requestAnimationFrame(draw);
}

function look(view) {
  for (const button of form.querySelectorAll("[data-view]")) {
    button.setAttribute("aria-pressed", String(button.dataset.view === view));
  }
  changesBox.hidden = view !== "changes";
  for (const source of form.querySelectorAll(".rewrite-source")) source.hidden = source.dataset.source !== view;
  form.querySelector(".panel-text").scrollTo(0, 0);
}

function startFrom(position) {
  const before = { text: text.value, start: start.value };
  const isLost = before.text.trim() && before.text !== original();
  start.value = position;
  text.value = original();
  changed();
  look("changes");
  text.focus();
  text.setSelectionRange(0, 0);
  text.scrollTo(0, 0);
  if (!isLost) return;
  toast(say("replaced", { name: "ABCDEFGHI"[Number(position)] }), {
    action: say("undo"),
    seconds: 15,
    onAction() {
      [text.value, start.value] = [before.text, before.start];
      changed();
    },
  });
}

text.addEventListener("input", changed);
text.addEventListener("keydown", (event) => {
  if (event.isComposing) return;
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
    event.preventDefault();
    form.requestSubmit(form.querySelector("[data-save]"));
  } else if (event.key === "Escape") {
    text.blur(); // the keys work again
  }
});
form.addEventListener("click", (event) => {
  const from = event.target.closest("[data-start]");
  const view = event.target.closest("[data-view]");
  if (from) {
    event.preventDefault();
    startFrom(from.dataset.start);
  } else if (view) {
    look(view.dataset.view);
  }
});
// The second of two presses finds the text saved already; the button must not look as if it did nothing, either.
form.addEventListener("submit", () => {
  drafts.flush();
  setTimeout(() => form.querySelectorAll("[type=submit]").forEach((button) => (button.disabled = true)));
});
addEventListener("pageshow", () => form.querySelectorAll("[type=submit]").forEach((button) => (button.disabled = false)));
addEventListener("pagehide", () => drafts.flush());

const leaseBadge = document.getElementById("lease");
keepLease({
  url: main.dataset.leaseUrl,
  seconds: Number(main.dataset.leaseSeconds),
  headers: fetchHeaders,
  show(sentence) {
    leaseBadge.hidden = !sentence;
    if (leaseBadge.textContent !== sentence) leaseBadge.textContent = sentence;
  },
});

const draft = drafts.load(id);
if (draft?.text && draft.text !== text.value) {
  text.value = draft.text;
  start.value = draft.start;
  watch = new Stopwatch(draft.seconds);
  toast(say("draftRestored"));
}
typeset(main, main.dataset.katexCss);
look(start.value === "" ? "0" : "changes");
draw();
