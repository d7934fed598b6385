// Making the better response better: a text field with what it changes beside it, word by word.

import { diff, splitWords } from "app/diff";
import { writtenText } from "app/reading";
import { clearToast, toast } from "app/toast";
import { say } from "app/words";

const IDLE_MS = 60_000; // pauses longer than this are not time spent on the text

/** The parts of the new text and of what it replaces: [{kind: "same" | "removed" | "added", text}], and counts of words. */
export function changes(before, after) {
  const [a, b] = [splitWords(before), splitWords(after)];
  const parts = [];
  const counts = { removed: 0, added: 0 };
  let at = 0;
  const add = (kind, text) => text && parts.push({ kind, text });
  const runs = diff(a.map((word) => word.text), b.map((word) => word.text));
  for (const run of runs) {
    const start = run.b[0] < b.length ? b[run.b[0]].start : after.length;
    add("same", after.slice(at, start));
    // With the space behind it, so that it stands apart from what follows.
    if (run.a[1] > run.a[0]) add("removed", before.slice(a[run.a[0]].start, a[run.a[1]]?.start ?? before.length));
    at = run.b[1] > run.b[0] ? b[run.b[1] - 1].end : start;
    add("added", after.slice(start, at));
    counts.removed += run.a[1] - run.a[0];
    counts.added += run.b[1] - run.b[0];
  }
  add("same", after.slice(at));
  return { parts, ...counts };
}

export function drawChanges(box, { parts }) {
  const tags = { same: "span", removed: "del", added: "ins" };
  box.replaceChildren(
    ...parts.map(({ kind, text }) => Object.assign(document.createElement(tags[kind]), { textContent: text })),
  );
}

export const clock = (seconds) => `${Math.floor(seconds / 60)}:${String(Math.floor(seconds % 60)).padStart(2, "0")}`;

/** Seconds in which somebody was at work on something: pauses are cut. */
export class Stopwatch {
  #seconds;
  #last = 0;

  constructor(seconds = 0) {
    this.#seconds = seconds;
  }

  touch() {
    const now = performance.now();
    if (this.#last) this.#seconds += Math.min(now - this.#last, IDLE_MS) / 1000;
    this.#last = now;
    return this.#seconds;
  }

  get seconds() {
    return this.#seconds;
  }
}

export class Editing extends EventTarget {
  #box = document.getElementById("editor");
  #text = this.#box.querySelector("[data-editor-text]");
  #figures = this.#box.querySelector("[data-editor-figures]");
  #item = null;
  #original = "";
  #position = 0;
  #watch = new Stopwatch();
  #frame = 0;

  /** Events: "input" when the text changed, "save" when it is to be saved with the vote, "close". */
  constructor() {
    super();
    this.#text.addEventListener("input", () => this.#changed());
    this.#box.addEventListener("click", (event) => {
      if (event.target.closest("[data-editor-close]")) this.close();
      else if (event.target.closest("[data-editor-save]")) this.#save();
      else if (event.target.closest("[data-editor-reset]")) {
        this.#text.value = this.#original;
        this.#changed();
        this.#text.focus();
      }
    });
    this.#box.addEventListener("keydown", (event) => {
      if (event.isComposing) return;
      if (event.key === "Escape") {
        event.preventDefault();
        this.close();
      } else if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
        event.preventDefault();
        this.#save();
      }
    });
  }

  get isOpen() {
    return !this.#box.hidden;
  }

  async edit(item, position) {
    try {
      this.#original = await writtenText(item, position);
    } catch {
      return toast(say("textFailed"));
    }
    this.#item = item;
    this.#position = position;
    const earlier = item.answer.edited?.position === position ? item.answer.edited : null;
    this.#watch = new Stopwatch(earlier?.seconds);
    this.#watch.touch();
    this.#text.value = earlier?.text ?? this.#original;
    this.#box.querySelector("[data-editor-title]").textContent = say("editing", { name: "AB"[position] });
    item.node.querySelector(".panels").after(this.#box);
    item.node.toggleAttribute("data-editing", true);
    this.#box.hidden = false;
    clearToast();
    this.#draw();
    this.#text.focus();
    this.#text.setSelectionRange(0, 0);
    this.#text.scrollTo(0, 0);
  }

  close() {
    if (!this.isOpen) return;
    this.#box.hidden = true;
    this.#item.node.toggleAttribute("data-editing", false);
    this.dispatchEvent(new Event("close"));
  }

  #changed() {
    const text = this.#text.value;
    const isChanged = text.trim() && text !== this.#original;
    this.#item.answer.edited = isChanged ? { position: this.#position, text, seconds: this.#watch.touch() } : null;
    cancelAnimationFrame(this.#frame);
    this.#frame = requestAnimationFrame(() => this.#draw());
    this.dispatchEvent(new Event("input"));
  }

  #draw() {
    const found = changes(this.#original, this.#text.value);
    drawChanges(this.#box.querySelector("[data-editor-diff]"), found);
    const isChanged = this.#text.value !== this.#original;
    const time = clock(this.#watch.seconds);
    this.#figures.textContent = isChanged ? say("editChanged", { ...found, time }) : say("editUnchanged");
  }

  #save() {
    this.close();
    this.dispatchEvent(new Event("save"));
  }
}
