// Votes that the server has not acknowledged. Each is a localStorage entry of its own, written before it is sent and
// removed when the server has it, so a reload, a closed tab or a lost connection loses nothing. The server stores a
// vote once however often it arrives, because its id is made here.

import { say } from "app/words";

const LONGEST_WAIT_MS = 30_000;

export function uuid4() {
  // crypto.randomUUID exists only on https and localhost; this site may run on a plain http address in a house.
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  bytes[6] = (bytes[6] & 0x0f) | 0x40;
  bytes[8] = (bytes[8] & 0x3f) | 0x80;
  const hex = [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");
  return [hex.slice(0, 8), hex.slice(8, 12), hex.slice(12, 16), hex.slice(16, 20), hex.slice(20)].join("-");
}

export function fetchHeaders() {
  // Read at each request: signing in elsewhere changes the token.
  const token = /(?:^|; )csrftoken=([^;]+)/.exec(document.cookie)?.[1] ?? "";
  return { "X-Requested-With": "fetch", "X-CSRFToken": token };
}

/**
 * Events: "change" (something was added, saved or refused), "elsewhere" {entry} (added by another tab), "saved"
 * {entry, html, headers}, "refused" {entry, status}, "waiting" {sentence, needsSignIn} after a failed try.
 */
export class Outbox extends EventTarget {
  #prefix;
  #memory = new Map();
  #wait = 0;
  #timer = 0;
  #isSending = false;
  #held;

  /** held: gives the assignments that the page has already, so that the server sends only new ones. */
  constructor(person, held) {
    super();
    this.#prefix = `touchstone.vote.${person}.`;
    this.#held = held;
    addEventListener("online", () => this.send());
    addEventListener("storage", (event) => {
      if (!event.key?.startsWith(this.#prefix)) return;
      if (event.newValue && !event.oldValue) this.#tell("elsewhere", { entry: JSON.parse(event.newValue) });
      this.#tell("change");
    });
  }

  /** All entries, oldest first: {id, kind, assignment, project, fields, answer, at, refused?}. */
  entries() {
    const entries = new Map(this.#memory);
    try {
      for (const key of Object.keys(localStorage)) {
        if (key.startsWith(this.#prefix)) entries.set(key, JSON.parse(localStorage.getItem(key)));
      }
    } catch {
      // No storage: what this tab remembers is all there is.
    }
    return [...entries.values()].sort((a, b) => a.at - b.at);
  }

  waiting() {
    return this.entries().filter((entry) => !entry.refused);
  }

  /** kind: the last part of the address it goes to; fields: pairs of name and value; answer: what the page remembers. */
  add(kind, assignment, project, fields, answer = null) {
    const last = this.entries().at(-1);
    const at = Math.max(Date.now(), (last?.at ?? 0) + 1);
    this.#store({ id: uuid4(), kind, assignment, project, fields, answer, at });
    this.#tell("change");
    this.#wait = 0;
    this.send();
  }

  remove(entry) {
    const key = this.#prefix + entry.id;
    this.#memory.delete(key);
    try {
      localStorage.removeItem(key);
    } catch {
      // No storage.
    }
    this.#tell("change");
  }

  #store(entry) {
    const key = this.#prefix + entry.id;
    try {
      localStorage.setItem(key, JSON.stringify(entry));
    } catch {
      this.#memory.set(key, entry);
    }
  }

  #tell(type, detail) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }

  /** Send what waits, one at a time and in order, because a later vote may correct an earlier one. */
  async send() {
    if (this.#isSending) return;
    clearTimeout(this.#timer);
    this.#isSending = true;
    try {
      for (let entry = this.waiting()[0]; entry; entry = this.waiting()[0]) {
        const problem = await this.#post(entry);
        if (problem) {
          this.#wait = Math.min(LONGEST_WAIT_MS, this.#wait ? this.#wait * 2 : 1000);
          this.#timer = setTimeout(() => this.send(), this.#wait * (0.75 + Math.random() / 2));
          this.#tell("waiting", problem);
          return;
        }
        this.#wait = 0;
      }
    } finally {
      this.#isSending = false;
    }
  }

  /** Gives {sentence, needsSignIn} when the entry must be tried again. */
  async #post(entry) {
    const body = new URLSearchParams(entry.fields);
    if (entry.kind === "judgment") body.set("judgment_id", entry.id);
    for (const id of this.#held()) body.append("held", id);
    let response, text;
    try {
      response = await fetch(`/assignments/${entry.assignment}/${entry.kind}`, {
        method: "POST",
        headers: fetchHeaders(),
        body,
        keepalive: true,
        signal: AbortSignal.timeout(20_000),
      });
      text = await response.text();
    } catch {
      return { sentence: say("noConnection"), needsSignIn: false };
    }
    const isSentence = response.headers.get("Content-Type")?.startsWith("text/plain");
    if (response.ok) {
      this.remove(entry);
      this.#tell("saved", { entry, html: response.status === 200 ? text : "", headers: response.headers });
      return null;
    }
    // A page instead of a sentence is not our view's word on this vote: a proxy's, or that of the forgery check after
    // a sign-out in another tab.
    if (response.status === 401 || (response.status === 403 && !isSentence)) {
      return { sentence: say("signedOut"), needsSignIn: true };
    }
    if (response.status >= 500 || response.status === 429 || !isSentence) {
      return { sentence: say("serverBusy"), needsSignIn: false };
    }
    entry.refused = text;
    this.#store(entry);
    this.#tell("refused", { entry, status: response.status });
    this.#tell("change");
    return null;
  }
}
