// Passages marked as wrong: select text in a response, then one tap for the kind. Offsets count characters of the text
// on the screen; the server finds them in the text as it was written.

import { highlight, fromCodePoints, ShownText, toCodePoints } from "app/shown-text";
import { toast } from "app/toast";
import { say } from "app/words";

const MENU_DISTANCE = 8; // pixels
const QUOTE_SHOWN = 120; // characters of a passage in the list

export class Marking extends EventTarget {
  #stage;
  #menu = document.getElementById("mark-menu");
  #dialog = document.getElementById("mark-dialog");
  #item = null;
  #selected = null;
  #kinds;

  /** Events: "input" when passages were marked, changed or removed. */
  constructor(stage, form) {
    super();
    this.#stage = stage;
    this.#kinds = new Map(
      [...this.#menu.querySelectorAll("[data-kind]")].map((button) => [button.dataset.kind, button.firstChild.data.trim()]),
    );
    let timer = 0;
    document.addEventListener("selectionchange", () => {
      clearTimeout(timer);
      timer = setTimeout(() => this.#offer(), 250);
    });
    this.#menu.addEventListener("click", (event) => {
      const kind = event.target.closest("[data-kind]")?.dataset.kind;
      if (kind && this.#selected) this.#add({ ...this.#selected, kind, note: "" });
      this.#close();
    });
    // A press on the menu must not take the selection away before the click.
    this.#menu.addEventListener("pointerdown", (event) => event.preventDefault());
    document.addEventListener("keydown", (event) => event.key === "Escape" && this.#close());
    form.querySelector("[data-mark]").addEventListener("click", () => this.#byKey());
    this.#dialog.querySelector("form").addEventListener("submit", (event) => this.#typed(event));
    stage.addEventListener("click", (event) => {
      const remove = event.target.closest("[data-unmark]");
      if (remove) this.#remove(Number(remove.dataset.unmark));
      const jump = event.target.closest("[data-jump]");
      if (jump) this.#jump(Number(jump.dataset.jump));
    });
    stage.addEventListener("input", (event) => {
      if (!event.target.matches("[data-mark-note]")) return;
      const spans = [...this.#item.answer.spans];
      const at = Number(event.target.dataset.markNote);
      spans[at] = { ...spans[at], note: event.target.value };
      this.#item.answer.spans = spans;
      this.dispatchEvent(new Event("input"));
    });
  }

  open(item) {
    this.#item = item;
    this.#close();
    this.#draw();
  }

  // ── Selecting ────────────────────────────────────────────────────────────────────────────────────────────────

  #read() {
    const selection = document.getSelection();
    if (!this.#item || !selection.rangeCount || selection.isCollapsed) return null;
    const range = selection.getRangeAt(0);
    const at = (node) => (node.nodeType === Node.TEXT_NODE ? node.parentElement : node).closest("[data-response]");
    const element = at(range.startContainer) ?? at(range.endContainer);
    if (!element || !this.#stage.contains(element)) return null;
    const shown = new ShownText(element);
    // A selection that begins or ends outside counts as far as the response goes.
    const start = element.contains(range.startContainer) ? shown.offsetOf(range.startContainer, range.startOffset, false) : 0;
    const end = element.contains(range.endContainer)
      ? shown.offsetOf(range.endContainer, range.endOffset, true)
      : shown.text.length;
    const quote = shown.text.slice(start, end);
    if (!quote.trim()) return null;
    const lead = quote.length - quote.trimStart().length;
    return {
      position: [...this.#stage.querySelectorAll("[data-response]")].indexOf(element),
      start: toCodePoints(shown.text, start + lead),
      quote: quote.trim(),
      box: range.getBoundingClientRect(),
    };
  }

  #offer() {
    if (this.#dialog.open) return;
    const selected = this.#read();
    if (!selected) return this.#close();
    const { box, ...passage } = selected;
    this.#selected = passage;
    this.#menu.showPopover();
    const { width, height } = this.#menu.getBoundingClientRect();
    const isBelow = box.top < height + MENU_DISTANCE + 48;
    const top = isBelow ? box.bottom + MENU_DISTANCE : box.top - height - MENU_DISTANCE;
    const left = Math.min(Math.max(8, box.left + box.width / 2 - width / 2), innerWidth - width - 8);
    Object.assign(this.#menu.style, { top: `${Math.min(top, innerHeight - height - 8)}px`, left: `${left}px` });
  }

  #close() {
    this.#selected = null;
    // Digits vote again.
    this.#menu.toggleAttribute("data-key-scope", false);
    if (this.#menu.matches(":popover-open")) this.#menu.hidePopover();
  }

  #byKey() {
    this.#offer();
    if (this.#selected) {
      this.#menu.toggleAttribute("data-key-scope", true);
      return;
    }
    this.#dialog.querySelector("[data-mark-problem]").textContent = "";
    this.#dialog.querySelectorAll("[name=position] option").forEach((option, position) => {
      option.hidden = option.disabled = position >= this.#item.count;
    });
    this.#dialog.showModal();
  }

  #typed(event) {
    if (event.submitter?.value !== "mark") return;
    const { quote, position, kind, note } = Object.fromEntries(new FormData(event.target));
    const shown = new ShownText(this.#stage.querySelectorAll("[data-response]")[position]);
    const words = quote.trim().split(/\s+/).map((word) => word.replace(/[.*+?^${}()|[\]\\]/g, "\\$&"));
    const found = new RegExp(words.join("\\s+")).exec(shown.text);
    if (!quote.trim() || !found) {
      event.preventDefault();
      const name = this.#stage.querySelectorAll(".panel")[position].dataset.name;
      this.#dialog.querySelector("[data-mark-problem]").textContent = say("markMissing", { name });
      return;
    }
    this.#add({ position: Number(position), start: toCodePoints(shown.text, found.index), quote: found[0], kind, note });
    event.target.reset();
  }

  // ── What is marked ───────────────────────────────────────────────────────────────────────────────────────────

  #add(span) {
    this.#item.answer.spans = [...this.#item.answer.spans, span];
    document.getSelection().removeAllRanges();
    this.#changed();
    const name = this.#stage.querySelectorAll(".panel")[span.position].dataset.name;
    toast(say("marked", { name, kind: this.#kinds.get(span.kind) }));
  }

  #remove(at) {
    this.#item.answer.spans = this.#item.answer.spans.filter((_, position) => position !== at);
    this.#changed();
  }

  #changed() {
    this.#draw();
    this.dispatchEvent(new Event("input"));
  }

  #rangeOf(span) {
    const element = this.#stage.querySelectorAll("[data-response]")[span.position];
    if (!element) return null;
    const shown = new ShownText(element);
    const start = fromCodePoints(shown.text, span.start);
    return shown.range(start, start + span.quote.length);
  }

  #jump(at) {
    const range = this.#rangeOf(this.#item.answer.spans[at]);
    (range?.startContainer.parentElement ?? null)?.scrollIntoView({ block: "center" });
  }

  #draw() {
    const spans = this.#item?.answer.spans ?? [];
    for (const kind of this.#kinds.keys()) {
      const ranges = spans.filter((span) => span.kind === kind).map((span) => this.#rangeOf(span));
      highlight(`error-${kind}`, ranges.filter(Boolean));
    }
    if (!this.#item) return;
    this.#item.node.querySelectorAll(".panel").forEach((panel, position) => {
      panel.querySelector(".marks")?.remove();
      const list = document.createElement("ul");
      list.className = "marks";
      spans.forEach((span, at) => span.position === position && list.append(this.#line(span, at)));
      if (list.childElementCount) panel.append(list);
    });
  }

  #line(span, at) {
    const line = document.createElement("li");
    line.className = "mark";
    line.dataset.kind = span.kind;
    const make = (tag, properties, data = {}) => {
      const element = Object.assign(document.createElement(tag), properties);
      Object.assign(element.dataset, data);
      return element;
    };
    const quote = span.quote.length > QUOTE_SHOWN ? `${span.quote.slice(0, QUOTE_SHOWN)} …` : span.quote;
    line.append(
      make("span", { className: "mark-kind", textContent: this.#kinds.get(span.kind) }),
      make("button", { type: "button", className: "mark-quote", dir: "auto", textContent: quote }, { jump: at }),
      make("input", { className: "mark-note", value: span.note, placeholder: say("markNote"), ariaLabel: say("markNote"), dir: "auto", maxLength: 1000 }, { markNote: at }),
      make("button", { type: "button", className: "tool", textContent: "×", ariaLabel: say("markRemove") }, { unmark: at }),
    );
    return line;
  }
}
