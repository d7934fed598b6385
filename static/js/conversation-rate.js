// The page on which an imported conversation is rated. The forms are the browser's own; this adds keys, and keeps what is
// typed and marked until the server has it.

import { Drafts } from "app/drafts";
import "app/hotkeys";
import { typeset } from "app/math";
import { toast } from "app/toast";
import { say } from "app/words";

const thread = document.getElementById("thread");
const drafts = new Drafts(thread.dataset.person);

// ── Digits score one aspect after the other ──────────────────────────────────────────────────────────────────────

const isScored = (scale) => Boolean(scale.querySelector(":checked"));

function turnTo(scale) {
  for (const other of scale.parentElement.querySelectorAll("[data-score]")) {
    other.toggleAttribute("data-keys-off", other !== scale);
    other.toggleAttribute("data-current", other === scale);
  }
}

function turnToNext(form, behind) {
  const scales = [...form.querySelectorAll("[data-score]")];
  const next = scales.slice(scales.indexOf(behind) + 1).find((scale) => !isScored(scale))
    ?? scales.find((scale) => !isScored(scale)) ?? behind ?? scales[0];
  if (next) turnTo(next);
}

thread.addEventListener("focusin", (event) => {
  const scale = event.target.closest("[data-score]");
  if (scale && event.target.matches(":focus-visible")) turnTo(scale);
});

// ── Drafts ───────────────────────────────────────────────────────────────────────────────────────────────────────

const idOf = (form) => `rating-${thread.dataset.id}-${form.dataset.turn}`;
const fieldsOf = (form) => [...form.elements].filter((field) => field.name && !field.matches("[type=hidden], button"));

/** Everything that is marked, as name=value, and the note. */
const answerOf = (form) => ({
  marked: fieldsOf(form).filter((field) => field.checked).map((field) => `${field.name}=${field.value}`),
  note: form.elements.note.value,
});

/** What the server has: a browser that comes back to a page may fill in more by itself. */
const savedOf = (form) => ({
  marked: fieldsOf(form).filter((field) => field.defaultChecked).map((field) => `${field.name}=${field.value}`),
  note: form.elements.note.defaultValue,
});

const isSame = (one, other) => one.note.trim() === other.note.trim() && `${one.marked}` === `${other.marked}`;

/** Gives whether something came back that the server has not. */
function restore(form) {
  const draft = drafts.load(idOf(form));
  if (!draft) return false;
  if (isSame(draft, savedOf(form))) {
    drafts.forget(idOf(form));
    return false;
  }
  for (const field of fieldsOf(form)) field.checked = draft.marked.includes(`${field.name}=${field.value}`);
  form.elements.note.value = draft.note;
  form.closest("details").open = true;
  return true;
}

function listenTo(form) {
  const { note } = form.elements;
  form.addEventListener("input", () => drafts.keep(idOf(form), () => answerOf(form)));
  form.addEventListener("change", (event) => {
    if (event.target.name === "scenario") {
      for (const box of form.querySelectorAll("[type=checkbox]")) {
        if (!box.closest(".chip").checkVisibility()) box.checked = false;
      }
    }
    const scale = event.target.closest("[data-score]");
    if (scale) turnToNext(form, scale);
  });
  note.addEventListener("hotkey", (event) => {
    event.preventDefault();
    note.focus();
  });
  note.addEventListener("keydown", (event) => {
    if (event.key === "Escape") note.blur();
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey) && !event.isComposing) {
      event.preventDefault();
      form.requestSubmit(form.querySelector("[data-save]"));
    }
  });
  form.addEventListener("submit", () => {
    drafts.flush();
    setTimeout(() => form.querySelectorAll("[type=submit]").forEach((button) => (button.disabled = true)));
  });
  turnToNext(form);
}

const forms = [...thread.querySelectorAll("form[data-turn]")];
addEventListener("pagehide", () => drafts.flush());
addEventListener("pageshow", () => {
  for (const form of forms) form.querySelectorAll("[type=submit]").forEach((button) => (button.disabled = false));
});
if (forms.map(restore).some(Boolean)) toast(say("draftRestored"));
forms.forEach(listenTo);
typeset(thread, thread.dataset.katexCss);
