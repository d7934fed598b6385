// Ranking three to nine responses: the arrow keys move between them, a digit ranks the one that is marked, and a grip
// drags them into an order. Works on the number fields that the page has without scripts, too.

import { toast } from "app/toast";
import { page, say } from "app/words";

export class Ranking {
  #answering;
  #item = null;
  #current = 0;

  constructor(stage, form, answering) {
    this.#answering = answering;
    form.addEventListener("hotkey", (event) => {
      if (!event.target.matches("[data-rank]")) return;
      event.preventDefault();
      this.#rank(this.#current, event.target.dataset.rank);
      this.#toNextUnranked();
    });
    document.addEventListener("keydown", (event) => this.#move(event));
    stage.addEventListener("focusin", (event) => {
      const at = this.#item ? this.#panels().indexOf(event.target.closest(".panel")) : -1;
      if (at >= 0) this.#mark(at);
    });
    stage.addEventListener("change", (event) => {
      if (!event.target.matches("input[name=rank]")) return;
      this.#rank(this.#panels().indexOf(event.target.closest(".panel")), event.target.value);
    });
    stage.addEventListener("pointerdown", (event) => {
      const grip = event.target.closest("[data-grip]");
      if (grip) this.#drag(event, grip);
    });
  }

  #panels = () => [...this.#item.node.querySelectorAll(".panel")];

  open(item) {
    this.#item = item.isRanked ? item : null;
    if (!this.#item) return;
    for (const panel of this.#panels()) {
      if (panel.querySelector("[data-grip]")) continue;
      const grip = Object.assign(document.createElement("span"), { className: "grip", textContent: "⠿" });
      grip.dataset.grip = "";
      grip.setAttribute("aria-hidden", "true"); // digits do the same for everybody
      panel.querySelector(".panel-head").prepend(grip);
    }
    const unranked = this.#panels().findIndex((panel) => !panel.querySelector("input[name=rank]").value);
    this.#mark(Math.max(0, unranked));
  }

  #mark(position) {
    this.#current = position;
    this.#panels().forEach((panel, at) => panel.toggleAttribute("data-current", at === position));
  }

  #focus(position) {
    this.#mark(position);
    const panel = this.#panels()[position];
    panel.scrollIntoView({ block: "nearest", inline: "nearest" });
    panel.querySelector(".panel-text").focus({ preventScroll: true });
  }

  #inOrder() {
    return this.#panels()
      .map((panel, position) => ({ position, order: Number(panel.style.order || 0) }))
      .sort((one, other) => one.order - other.order || one.position - other.position)
      .map(({ position }) => position);
  }

  #move(event) {
    if (!this.#item || event.defaultPrevented || event.isComposing || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key !== "ArrowLeft" && event.key !== "ArrowRight") return;
    if (event.target.closest("input, textarea, select, [contenteditable], dialog, [popover]")) return;
    event.preventDefault();
    const order = this.#inOrder();
    const step = (event.key === "ArrowRight") === (getComputedStyle(this.#item.node).direction === "ltr") ? 1 : -1;
    const at = order.indexOf(this.#current) + step;
    if (order[at] !== undefined) this.#focus(order[at]);
  }

  #rank(position, text) {
    const inputs = this.#panels().map((panel) => panel.querySelector("input[name=rank]"));
    const rank = Number(text);
    if (text && !(Number.isInteger(rank) && rank >= 1 && rank <= inputs.length)) {
      inputs[position].value = "";
      return;
    }
    inputs[position].value = text;
    const none = document.querySelector(".ranking input[type=checkbox]");
    if (none) none.checked = false;
    if (!page.allowTies && text) {
      const other = inputs.findIndex((input, at) => at !== position && input.value === text);
      if (other >= 0) {
        inputs[other].value = "";
        toast(say("rankTaken", { name: this.#panels()[other].dataset.name }));
      }
    }
    this.#answering.dispatchEvent(new Event("input"));
  }

  #toNextUnranked() {
    const panels = this.#panels();
    const order = this.#inOrder();
    const at = order.indexOf(this.#current);
    const rest = [...order.slice(at + 1), ...order.slice(0, at)];
    const next = rest.find((position) => !panels[position].querySelector("input[name=rank]").value);
    if (next !== undefined) this.#focus(next);
    else this.#answering.goOn();
  }

  // ── Dragging, by the grip alone, so that a finger on the text scrolls it ────────────────────────────────────

  #drag(event, grip) {
    event.preventDefault();
    const panels = this.#panels();
    const dragged = grip.closest(".panel");
    const order = this.#inOrder().map((position) => panels[position]);
    const place = () => order.forEach((panel, at) => (panel.style.order = String(at)));
    grip.setPointerCapture(event.pointerId);
    dragged.toggleAttribute("data-dragged", true);
    const move = ({ clientX }) => {
      const over = order.find((panel) => {
        const box = panel.getBoundingClientRect();
        return panel !== dragged && clientX > box.left && clientX < box.right;
      });
      if (!over) return;
      const [from, to] = [order.indexOf(dragged), order.indexOf(over)];
      const box = over.getBoundingClientRect();
      const isPast = to > from ? clientX > box.left + box.width / 2 : clientX < box.left + box.width / 2;
      if (!isPast) return;
      order.splice(to, 0, ...order.splice(from, 1));
      place();
    };
    const drop = () => {
      grip.removeEventListener("pointermove", move);
      dragged.toggleAttribute("data-dragged", false);
      order.forEach((panel, at) => (panel.querySelector("input[name=rank]").value = String(at + 1)));
      this.#rank(panels.indexOf(dragged), dragged.querySelector("input[name=rank]").value);
      this.#answering.goOn();
    };
    place();
    grip.addEventListener("pointermove", move);
    grip.addEventListener("lostpointercapture", drop, { once: true });
  }
}
