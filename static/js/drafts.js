// What was begun and not saved yet: kept in this browser for each assignment until the server has the answer.

const KEPT_MS = 14 * 24 * 60 * 60 * 1000;

export class Drafts {
  #prefix;
  #timers = new Map();

  constructor(person) {
    this.#prefix = `touchstone.draft.${person}.`;
    this.#forgetOld();
  }

  #forgetOld() {
    try {
      for (const key of Object.keys(localStorage)) {
        if (!key.startsWith(this.#prefix)) continue;
        const { at } = JSON.parse(localStorage.getItem(key)) ?? {};
        if (!(at > Date.now() - KEPT_MS)) localStorage.removeItem(key);
      }
    } catch {
      // No storage, or not ours.
    }
  }

  /** Store soon; `read` gives the answer at that time, so that a burst of keys costs one write. */
  keep(id, read) {
    clearTimeout(this.#timers.get(id)?.timer);
    this.#timers.set(id, { read, timer: setTimeout(() => this.#write(id), 300) });
  }

  #write(id) {
    const waiting = this.#timers.get(id);
    if (!waiting) return;
    clearTimeout(waiting.timer);
    this.#timers.delete(id);
    try {
      localStorage.setItem(this.#prefix + id, JSON.stringify({ answer: waiting.read(), at: Date.now() }));
    } catch {
      // No storage, or full: the draft lasts for this page.
    }
  }

  /** Store what still waits, as when the page is left. */
  flush() {
    for (const id of [...this.#timers.keys()]) this.#write(id);
  }

  load(id) {
    try {
      return JSON.parse(localStorage.getItem(this.#prefix + id))?.answer ?? null;
    } catch {
      return null;
    }
  }

  forget(id) {
    clearTimeout(this.#timers.get(id)?.timer);
    this.#timers.delete(id);
    try {
      localStorage.removeItem(this.#prefix + id);
    } catch {
      // No storage.
    }
  }
}
