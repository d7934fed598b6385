// What the person sees of saving: a badge while votes wait, and notices about what needs them.

import { say } from "app/words";

const REVEAL_AFTER_MS = 1500; // a save that takes its usual moment needs no words

function notice(texts, control, tone = "error") {
  const box = Object.assign(document.createElement("div"), { className: "notice spread" });
  box.dataset.tone = tone;
  box.setAttribute("role", tone === "error" ? "alert" : "status");
  const words = document.createElement("div");
  words.append(...texts.map((text) => Object.assign(document.createElement("p"), { textContent: text, dir: "auto" })));
  box.append(words, control);
  return box;
}

function control(tag, textContent, properties) {
  return Object.assign(document.createElement(tag), { className: "button button-small", textContent, ...properties });
}

export class SavingStatus {
  #outbox;
  #badge = document.getElementById("pending");
  #notices = document.getElementById("notices");
  #guidelines;
  #timer = 0;
  #guidelinesChanged = false;
  needsSignIn = false;
  /** Why the last try failed; empty when all is well. */
  trouble = "";

  constructor(outbox, guidelines) {
    this.#outbox = outbox;
    this.#guidelines = guidelines;
    outbox.addEventListener("change", () => this.show());
    outbox.addEventListener("waiting", ({ detail }) => {
      this.trouble = detail.sentence;
      this.needsSignIn = detail.needsSignIn;
      this.show();
    });
    outbox.addEventListener("saved", ({ detail }) => {
      this.trouble = "";
      this.needsSignIn = false;
      this.#guidelinesChanged ||= guidelines.isStale(detail.headers);
      this.show();
    });
  }

  show() {
    this.#showBadge();
    this.#showNotices();
  }

  #showBadge() {
    clearTimeout(this.#timer);
    const count = this.#outbox.waiting().length;
    if (!count) {
      this.trouble = "";
      this.#badge.hidden = true;
      return;
    }
    const reveal = () => {
      this.#badge.textContent = say("waiting", { count });
      this.#badge.title = this.trouble;
      this.#badge.hidden = false;
    };
    if (this.trouble) reveal();
    else this.#timer = setTimeout(reveal, REVEAL_AFTER_MS);
  }

  #showNotices() {
    const boxes = this.#outbox
      .entries()
      .filter((entry) => entry.refused)
      .map((entry) => {
        const close = control("button", say("dismiss"), { type: "button" });
        close.addEventListener("click", () => this.#outbox.remove(entry));
        const texts = [say("notSaved", { reason: entry.refused })];
        if (entry.answer?.note) texts.push(say("yourNote", { note: entry.answer.note }));
        if (entry.answer?.edited) texts.push(say("yourEdit", { text: entry.answer.edited.text }));
        return notice(texts, close);
      });
    if (this.#guidelinesChanged) {
      const read = control("button", say("readGuidelines"), { type: "button" });
      read.addEventListener("click", async () => {
        if (!(await this.#guidelines.refresh())) return;
        this.#guidelinesChanged = false;
        this.show();
      });
      boxes.unshift(notice([say("guidelinesChanged")], read, "warning"));
    }
    if (this.needsSignIn) {
      const href = `/login/?next=${encodeURIComponent(location.pathname)}`;
      boxes.unshift(notice([say("signedOut")], control("a", say("signIn"), { href })));
    }
    this.#notices.replaceChildren(...boxes);
  }
}
