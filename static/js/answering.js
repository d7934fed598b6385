// The vote form. One form serves every comparison of the page: it is filled from an item's answer when the item comes
// to the screen and read back when it leaves.
//
// What is asked is a row of steps: the verdict or the ranking, further axes, scores. Digits belong to one step at a
// time; answering it hands them to the next one that is unanswered.

import { setting } from "app/hotkeys";
import { page, say } from "app/words";

export const emptyAnswer = () => ({
  choice: "",
  ranks: [],
  axes: {},
  ratings: {},
  chips: [],
  note: "",
  spans: [],
  edited: null,
});

/** The position of the response that a choice finds better; null where neither is. */
export function betterPosition(choice) {
  if (choice === "left" || Number(choice) < 0) return 0;
  if (choice === "right" || Number(choice) > 0) return 1;
  return null;
}

/** What a stored answer looks like here. */
export function fromStored({ edited_text: text, edit_seconds: seconds, ...answer }) {
  const position = betterPosition(answer.choice);
  return { ...emptyAnswer(), ...answer, ranks: answer.ranks.map(String), edited: text ? { position, text, seconds } : null };
}

/** The pairs of field and value that the server reads; see annotation/pages/answers.py. */
export function toFields(answer, count) {
  const fields = [["choice", answer.choice], ["responses", count]];
  if (answer.choice === "ranked") for (const rank of answer.ranks) fields.push(["rank", rank]);
  for (const [name, value] of Object.entries(answer.axes)) fields.push([`axis-${name}`, value]);
  for (const [aspect, scores] of Object.entries(answer.ratings)) {
    scores.forEach((score, position) => score !== null && fields.push([`rating-${aspect}-${position}`, score]));
  }
  for (const chip of answer.chips) fields.push(["chip", chip]);
  if (answer.note) fields.push(["note", answer.note]);
  for (const { position, start, quote, kind, note } of answer.spans) {
    fields.push(["span", JSON.stringify({ position, start, quote, kind, note })]);
  }
  if (answer.edited && answer.edited.position === betterPosition(answer.choice)) {
    fields.push(["edited_text", answer.edited.text], ["edit_seconds", Math.round(answer.edited.seconds)]);
  }
  return fields.map(([name, value]) => [name, String(value)]);
}

export const sameAnswer = (one, other) => JSON.stringify(one) === JSON.stringify(other);

const NAMES = "ABCDEFGHI";

export class Answering extends EventTarget {
  #form;
  #item = null;
  #steps = [];
  /** Set where a digit must only mark, because something else is to follow: an edit. */
  holds = false;

  /** Events: "choose" {element} when a step is answered, "input" when anything changes. */
  constructor(form) {
    super();
    this.#form = form;
    form.noValidate = true;
    form.addEventListener("hotkey", (event) => {
      if (!event.target.matches("input[type=radio]")) return;
      event.preventDefault();
      event.target.checked = true;
      this.#answered(event.target);
    });
    // A pointer answers; the arrow keys inside a group of radio buttons only mark, as everywhere else.
    form.addEventListener("click", (event) => {
      if (event.target.matches("input[type=radio]") && event.detail > 0) this.#answered(event.target);
    });
    form.addEventListener("change", (event) => {
      if (event.target.matches(".ranking input[type=checkbox]")) this.#answered(event.target);
      this.#tell();
    });
    form.addEventListener("input", () => this.#tell());
    form.addEventListener("focusin", (event) => {
      const step = event.target.closest("[data-step]");
      if (step) this.#activate(step);
    });
  }

  #tell() {
    if (this.#item) this.dispatchEvent(new Event("input"));
  }

  // ── Filling and reading ──────────────────────────────────────────────────────────────────────────────────────

  open(item) {
    this.#item = item;
    this.holds = false;
    const form = this.#form;
    const { answer, count, isRanked } = item;
    form.querySelector("[data-step=verdict]")?.toggleAttribute("hidden", isRanked);
    form.querySelector("[data-step=ranking]").hidden = !isRanked;
    for (const axis of form.querySelectorAll(".axis")) axis.hidden = count > 2;
    for (const cell of form.querySelectorAll("[data-position]")) cell.hidden = Number(cell.dataset.position) >= count;
    for (const fieldset of form.querySelectorAll("fieldset[data-step]")) fieldset.disabled = fieldset.hidden;
    for (const key of form.querySelectorAll("[data-rank]")) key.hidden = Number(key.dataset.rank) > count;
    const values = new Map([["choice", isRanked ? "" : answer.choice]]);
    for (const [name, value] of Object.entries(answer.axes)) values.set(`axis-${name}`, String(value));
    for (const [aspect, scores] of Object.entries(answer.ratings)) {
      scores.forEach((score, position) => values.set(`rating-${aspect}-${position}`, String(score)));
    }
    for (const input of form.querySelectorAll("input[type=radio]")) {
      input.checked = values.get(input.name) === input.value;
    }
    for (const input of form.querySelectorAll(".ranking input[type=checkbox]")) {
      input.checked = isRanked && answer.choice === input.value;
    }
    for (const chip of form.querySelectorAll("[name=chip]")) chip.checked = answer.chips.includes(chip.value);
    const note = form.querySelector("[name=note]");
    if (note) {
      note.value = answer.note;
      note.closest("details").open = page.noteRequired || Boolean(answer.note);
    }
    if (isRanked) this.#rankInputs().forEach((input, position) => (input.value = answer.ranks[position] ?? ""));
    this.#steps = [...form.querySelectorAll("[data-step]")].filter((step) => !step.hidden);
    this.#activate(this.#steps.find((step) => !this.#isAnswered(step)) ?? this.#steps[0]);
  }

  #rankInputs = () => [...this.#item.node.querySelectorAll("input[name=rank]")];

  #value = (name) => this.#form.querySelector(`input[name="${CSS.escape(name)}"]:checked:enabled`)?.value ?? "";

  read() {
    const { count, isRanked, answer } = this.#item;
    const ranks = isRanked ? this.#rankInputs().map((input) => input.value.trim()) : [];
    let choice = this.#value("choice");
    if (isRanked && !choice && ranks.some(Boolean)) choice = "ranked";
    const read = { ...emptyAnswer(), choice, ranks: choice === "ranked" ? ranks : [] };
    for (const step of this.#steps) {
      const name = step.dataset.step;
      const value = this.#value(name);
      if (!value) continue;
      const [, aspect, position] = /^rating-(.+)-(\d)$/.exec(name) ?? [];
      if (aspect) {
        read.ratings[aspect] ??= Array(count).fill(null);
        read.ratings[aspect][position] = Number(value);
      } else if (name.startsWith("axis-")) {
        read.axes[name.slice("axis-".length)] = Number(value);
      }
    }
    read.chips = [...this.#form.querySelectorAll("[name=chip]:checked")].map((chip) => chip.value);
    read.note = this.#form.querySelector("[name=note]")?.value.trim() ?? "";
    read.spans = answer.spans;
    read.edited = answer.edited;
    return read;
  }

  /** How an answer is called in a sentence. */
  nameOf(answer) {
    if (answer.choice === "ranked") {
      const order = answer.ranks.map((rank, position) => ({ rank: Number(rank), name: NAMES[position] }));
      order.sort((one, other) => one.rank - other.rank);
      return order.map(({ rank, name }, at) => (at ? (rank === order[at - 1].rank ? " = " : " > ") : "") + name).join("");
    }
    return this.#inputOf(answer.choice)?.dataset.hotkeyLabel ?? "";
  }

  #inputOf = (choice) =>
    choice && this.#form.querySelector(`[data-step]:not([hidden]) input[name=choice][value="${CSS.escape(choice)}"]`);

  /** Light up for a moment what was chosen: the next pair is on the screen already. */
  flash(answer) {
    const button = this.#inputOf(answer.choice)?.closest("label");
    if (!button || matchMedia("(prefers-reduced-motion: reduce)").matches) return;
    button.classList.add("was-chosen");
    button.getAnimations().forEach((animation) => animation.cancel());
    setTimeout(() => button.classList.remove("was-chosen"), 450);
  }

  // ── Steps ────────────────────────────────────────────────────────────────────────────────────────────────────

  #isAnswered(step) {
    if (step.dataset.step === "ranking") {
      return Boolean(step.querySelector("input:checked")) || this.#rankInputs().every((input) => input.value);
    }
    return Boolean(step.querySelector("input:checked"));
  }

  #activate(active) {
    for (const step of this.#steps) {
      step.toggleAttribute("data-active", step === active && this.#steps.length > 1);
      step.toggleAttribute("data-keys-off", step !== active);
    }
  }

  #answered(element) {
    if (!this.#item) return;
    const step = element.closest("[data-step]");
    this.#tell();
    const isVerdict = step === this.#steps[0];
    this.dispatchEvent(new CustomEvent("choose", { detail: { isVerdict, element } }));
    if (!this.#form.hidden) this.goOn(step);
  }

  /** Hand the digits to the next step without an answer. */
  goOn(step = this.#steps[0]) {
    if (!this.#steps.includes(step) || !this.#isAnswered(step)) return;
    const at = this.#steps.indexOf(step);
    const rest = [...this.#steps.slice(at + 1), ...this.#steps.slice(0, at)];
    const next = rest.find((candidate) => !this.#isAnswered(candidate));
    if (!next) return;
    this.#activate(next);
    next.querySelector("input")?.focus({ preventScroll: true });
    next.scrollIntoView({ block: "nearest" });
  }

  /** Whether a verdict by itself ends the comparison, as things stand. */
  get completesAtOnce() {
    const noteOpen = this.#form.querySelector("details.note")?.open;
    const { isRanked, answer } = this.#item;
    return !page.needsMore && !isRanked && !noteOpen && !answer.edited && !this.holds && !setting("careful");
  }

  /** What the protocol asks for and the answer lacks: {sentence, element}, or null. */
  missing(answer) {
    for (const step of this.#steps) {
      if (this.#isAnswered(step)) continue;
      if (step.dataset.step === "verdict") {
        return { sentence: say("chooseFirst"), element: step.querySelector("input") };
      }
      if (step.dataset.step === "ranking") {
        const inputs = this.#rankInputs();
        const names = inputs.flatMap((input, position) => (input.value ? [] : [NAMES[position]]));
        return {
          sentence: say("rankFirst", { names: names.join(", ") }),
          element: inputs.find((input) => !input.value).closest(".panel").querySelector(".panel-text"),
        };
      }
      if (step.hasAttribute("data-required")) {
        return { sentence: say("rowFirst", { label: step.dataset.label }), element: step.querySelector("input") };
      }
    }
    if (page.chipsRequired && !answer.chips.length) {
      return { sentence: say("chipsFirst"), element: this.#form.querySelector("[name=chip]") };
    }
    if (page.noteRequired && !answer.note) {
      this.openNote();
      return { sentence: say("noteFirst"), element: this.#form.querySelector("[name=note]") };
    }
    const better = betterPosition(answer.choice);
    if (page.editRequired && better !== null && answer.edited?.position !== better) {
      return { sentence: say("editFirst"), element: this.#form.querySelector("[data-edit]") };
    }
    return null;
  }

  openNote() {
    const note = this.#form.querySelector("details.note");
    if (!note) return;
    note.open = true;
    note.querySelector("textarea").focus();
  }
}
