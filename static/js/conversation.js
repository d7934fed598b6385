// A conversation: responses appear as they are written, a digit picks, what is sent starts the next turn. The server
// draws the turns; this script swaps them in and keeps every draft until the server has it.

import { Guidelines } from "app/guidelines";
import { labelKeys } from "app/hotkeys";
import { typeset } from "app/math";
import { fetchHeaders, uuid4 } from "app/outbox";
import { toast } from "app/toast";
import { say as sentence } from "app/words";

const main = document.querySelector("main.talk");
const thread = document.getElementById("thread");
const form = document.getElementById("feedback");
const types = document.getElementById("types");
const message = document.getElementById("message");
const word = (name) => main.dataset[`word${name}`];

const guidelines = new Guidelines(main.dataset.guidelinesUrl, main.dataset.katexCss);

const current = () => thread.querySelector(".talk-turn:last-child");
const position = () => Number(current().dataset.position);

// ── Requests, one after the other, so that what is drawn last is what is true last ─────────────────────────────

let queue = Promise.resolve();

function inOrder(work) {
  const done = queue.then(work);
  queue = done.catch(() => {});
  return done;
}

/** Gives the answer's text; throws the sentence that tells what went wrong. */
async function ask(url, body = null) {
  let response, text;
  try {
    response = await fetch(url, { method: body ? "POST" : "GET", headers: fetchHeaders(), body });
    text = await response.text();
  } catch {
    throw new Error(word("Offline"));
  }
  if (guidelines.isStale(response.headers)) tellOfGuidelines();
  if (response.ok) return text;
  const isSentence = response.headers.get("Content-Type")?.startsWith("text/plain");
  throw new Error(isSentence ? text : word("Server"));
}

function tellOfGuidelines() {
  const box = Object.assign(document.createElement("div"), { id: "guidelines-changed", className: "notice spread" });
  box.dataset.tone = "warning";
  box.setAttribute("role", "status");
  const read = document.createElement("button");
  Object.assign(read, { type: "button", className: "button button-small", textContent: sentence("readGuidelines") });
  read.addEventListener("click", async () => {
    if (await guidelines.refresh()) box.remove();
  });
  box.append(Object.assign(document.createElement("p"), { textContent: sentence("guidelinesChanged") }), read);
  document.getElementById(box.id)?.remove();
  document.getElementById("notices").append(box);
  box.scrollIntoView({ block: "nearest" });
}

// ── Drawing ──────────────────────────────────────────────────────────────────────────────────────────────────────

let shownAt = 0;
let firstKeyAt = 0;
let hiddenMs = 0;
let hiddenSince = 0;

function draw(html) {
  keepDraft();
  const holder = document.createElement("template");
  holder.innerHTML = html;
  const before = position();
  for (const node of holder.content.querySelectorAll(".talk-turn")) {
    const article = document.importNode(node, true);
    const known = document.getElementById(article.id);
    if (known) {
      keepAnswers(known.querySelector("[data-pick]"), article.querySelector("[data-pick]"));
      known.replaceWith(article);
    }
    else thread.append(article);
    labelKeys(article);
    typeset(article, main.dataset.katexCss);
  }
  if (position() !== before) beginTurn();
  restoreDraft();
}

/** What was marked beside the choice: the server sends an empty form. */
function keepAnswers(before, after) {
  if (!before || !after) return;
  const [fold, newFold] = [before, after].map((form) => form.querySelector(".talk-optional"));
  if (fold && newFold) newFold.open = fold.open;
  for (const field of after.querySelectorAll(".talk-more :is(input, textarea)")) {
    const twin = [...before.elements].find((other) => other.name === field.name
      && (field.matches("textarea") || other.value === field.value));
    if (field.matches("textarea")) field.value = twin?.value ?? "";
    else field.checked = Boolean(twin?.checked);
  }
}

function beginTurn() {
  for (const input of types.querySelectorAll("input")) input.checked = false;
  message.value = "";
  const isLast = position() + 1 >= Number(main.dataset.most);
  for (const element of [types, message, form.querySelector("[data-send]")]) element.hidden = isLast;
  form.querySelector("[data-last]").hidden = !isLast;
  document.querySelector("[data-turn-count]").textContent = String(position() + 1);
  form.elements.edit_seconds.value = "0";
  startClock();
  const heading = current().querySelector("h2");
  heading.tabIndex = -1;
  heading.focus({ preventScroll: true });
  current().scrollIntoView({ block: "start" });
}

function startClock() {
  shownAt = performance.now();
  firstKeyAt = 0;
  hiddenMs = 0;
  hiddenSince = document.hidden ? shownAt : 0;
}

document.addEventListener("visibilitychange", () => {
  if (document.hidden) hiddenSince = performance.now();
  else {
    hiddenMs += hiddenSince ? performance.now() - hiddenSince : 0;
    hiddenSince = 0;
  }
});
document.addEventListener("keydown", () => (firstKeyAt ||= performance.now()), { capture: true });

// ── Responses as they are written ────────────────────────────────────────────────────────────────────────────────

const RETRY_MS = 1500;
let watching = null;

const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
const isWriting = () => Boolean(current().querySelector('.talk-side[data-status="open"]'));
const say = (text) => {
  const line = current().querySelector("[data-status-line]");
  if (line && line.textContent !== text) line.textContent = text;
};

async function watch() {
  if (watching) return;
  watching = new AbortController();
  const at = position();
  try {
    while (isWriting() && position() === at) {
      say(word("Writing"));
      const waitMs = await readStream(watching.signal);
      if (waitMs) await pause(waitMs);
    }
  } finally {
    watching = null;
  }
  await refresh(at);
  say(word("Complete"));
}

/** Gives how long to wait before trying again; 0 where the stream came to its end. */
async function readStream(signal) {
  try {
    const response = await fetch(main.dataset.streamUrl, { headers: fetchHeaders(), signal });
    if (!response.ok) {
      const isSentence = response.headers.get("Content-Type")?.startsWith("text/plain");
      refuse(isSentence ? await response.text() : word("Server"));
      return Number(response.headers.get("Retry-After") ?? 5) * 1000;
    }
    refuse("");
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    let rest = "";
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return isWriting() ? RETRY_MS : 0;
      const lines = (rest + value).split("\n");
      rest = lines.pop();
      for (const line of lines) if (line) receive(JSON.parse(line));
    }
  } catch {
    return RETRY_MS; // the connection broke; what was written meanwhile comes with the next one
  }
}

function receive(event) {
  const side = current().querySelector(`[data-side="${event.side}"]`);
  if (!side) return;
  if ("html" in event) {
    const holder = document.createElement("template");
    holder.innerHTML = event.html;
    const node = document.importNode(holder.content.firstElementChild, true);
    side.replaceWith(node);
    typeset(node, main.dataset.katexCss);
    return;
  }
  const box = side.querySelector("[data-arriving]");
  if (!box) return;
  if ("text" in event) box.textContent = event.text;
  else if (box.firstChild) box.firstChild.appendData(event.more);
  else box.textContent = event.more;
}

async function refresh(since) {
  try {
    await inOrder(async () => draw(await ask(`${main.dataset.url}?since=${since}`)));
  } catch (error) {
    refuse(error.message);
  }
}

// ── Picking ──────────────────────────────────────────────────────────────────────────────────────────────────────

async function pick(radio) {
  radio.checked = true;
  const body = new FormData(radio.form);
  body.set("judgment_id", uuid4());
  body.set("guideline_version", String(guidelines.version));
  body.set("decided_in_ms", String(Math.max(0, Math.round(performance.now() - shownAt - hiddenMs))));
  if (firstKeyAt) body.set("first_key_ms", String(Math.max(0, Math.round(firstKeyAt - shownAt))));
  try {
    await inOrder(async () => draw(await ask(radio.form.action, body)));
  } catch (error) {
    toast(`${word("Choice")} ${error.message}`, { seconds: 8 });
    return;
  }
  const own = current().querySelector("textarea[data-own-text]:not(details *)");
  const outcome = current().querySelector(".talk-outcome");
  (own ?? outcome)?.focus({ preventScroll: !own });
}

/** Where more is asked than a step, or being said, a step only marks. */
function choose(radio) {
  radio.checked = true;
  if (!radio.form.matches("[data-careful], :has(.talk-optional[open])")) pick(radio);
  else radio.focus({ preventScroll: true }); // Enter saves it
}

thread.addEventListener("hotkey", (event) => {
  if (event.target.matches("input[name=choice]")) {
    event.preventDefault();
    choose(event.target);
  } else if (event.target.matches(".talk-optional > summary")) {
    event.preventDefault();
    const fold = event.target.parentElement;
    fold.open = !fold.open; // at once, or the first letters of a note would still be keys
    if (fold.open) fold.querySelector(".talk-more :is(input, textarea)").focus();
  } else if (event.target.matches("textarea")) {
    event.preventDefault();
    event.target.focus();
  }
});
// The arrow keys only mark, as everywhere else; Enter saves what is marked.
thread.addEventListener("click", (event) => {
  if (event.target.matches("input[name=choice]") && event.detail > 0) choose(event.target);
});
thread.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && event.target.matches("input[name=choice]")) {
    event.preventDefault();
    pick(event.target.form.querySelector("input[name=choice]:checked") ?? event.target);
  }
});
thread.addEventListener("toggle", (event) => {
  if (event.target.matches("details.talk-own") && event.target.open) event.target.querySelector("textarea").focus();
}, { capture: true });

thread.addEventListener("submit", async (event) => {
  event.preventDefault();
  const sent = event.target;
  if (sent.matches("[data-pick]")) {
    const marked = sent.querySelector("input[name=choice]:checked");
    if (marked) pick(marked);
    return;
  }
  const url = event.submitter?.getAttribute("formaction") ?? sent.action;
  const body = new FormData(sent);
  try {
    await inOrder(async () => draw(await ask(url, body)));
  } catch (error) {
    refuse(error.message);
    return;
  }
  if (isWriting()) watch();
});

// ── Feedback ─────────────────────────────────────────────────────────────────────────────────────────────────────

let isSending = false;

function refuse(sentence) {
  const line = form.querySelector("[data-refusal]");
  line.textContent = sentence;
  line.hidden = !sentence;
}

async function send() {
  if (isSending) return;
  isSending = true;
  const at = position();
  const body = new FormData(form);
  try {
    const html = await inOrder(() => ask(form.action, body));
    refuse("");
    draw(html);
    forgetDraft(at);
    watch();
  } catch (error) {
    refuse(error.message);
  } finally {
    isSending = false;
  }
}

function dropHidden() {
  for (const box of types.querySelectorAll("input[type=checkbox]")) {
    if (!box.closest(".chip").checkVisibility()) box.checked = false;
  }
}

let editingSince = 0;

function listenToForm() {
  form.addEventListener("submit", (event) => {
    if (event.submitter?.matches("[data-end]")) return;
    event.preventDefault();
    send();
  });
  message.addEventListener("hotkey", (event) => {
    event.preventDefault();
    message.focus();
  });
  types.addEventListener("change", (event) => {
    if (event.target.name === "scenario") dropHidden();
  });
  for (const name of ["input", "change"]) main.addEventListener(name, keepDraft);
  document.addEventListener("keydown", (event) => {
    if (!event.target.matches("textarea") || event.isComposing) return;
    if (event.key === "Escape") event.target.blur();
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
      event.preventDefault();
      event.target.form.requestSubmit();
    }
  });
  thread.addEventListener("focusin", (event) => {
    if (event.target.matches("[data-own-text]")) editingSince = performance.now();
  });
  thread.addEventListener("focusout", (event) => {
    if (!event.target.matches("[data-own-text]") || !editingSince) return;
    const seconds = Number(form.elements.edit_seconds.value) + (performance.now() - editingSince) / 1000;
    form.elements.edit_seconds.value = String(Math.round(seconds));
    editingSince = 0;
  });
}

// ── Drafts: what was typed and marked for a turn, until the server has it ───────────────────────────────────────

const draftKey = (at) => `touchstone.talk.${main.dataset.id}.${at}`;

function draftFields() {
  const besideChoice = current().querySelectorAll("[data-pick] .talk-more :is(input, textarea)");
  const fields = [...form.elements, ...besideChoice];
  return fields.filter((field) => field.name && field.type !== "hidden" && field.type !== "submit");
}

/** What a person writes instead of a response belongs to that response, and not to another that is kept later. */
function draftName(field) {
  if (field.form !== form) return `more ${field.name}`;
  return field.dataset.ownText === undefined ? field.name : `own ${field.dataset.ownText}`;
}

function readDraft() {
  try {
    return JSON.parse(localStorage.getItem(draftKey(position())) ?? "{}");
  } catch {
    return {};
  }
}

function keepDraft() {
  if (!form) return;
  const draft = Object.fromEntries(Object.entries(readDraft()).filter(([name]) => name.startsWith("own ")));
  for (const field of draftFields()) {
    if (field.type === "radio" || field.type === "checkbox") {
      if (field.checked) (draft[draftName(field)] ??= []).push(field.value);
    } else if (field.value !== field.defaultValue) draft[draftName(field)] = field.value;
    else delete draft[draftName(field)];
  }
  try {
    if (Object.keys(draft).length) localStorage.setItem(draftKey(position()), JSON.stringify(draft));
    else localStorage.removeItem(draftKey(position()));
  } catch {
    // No storage: the page itself still holds everything.
  }
}

function restoreDraft() {
  if (!form) return;
  const draft = readDraft();
  for (const field of draftFields()) {
    const kept = draft[draftName(field)];
    if (kept === undefined) continue;
    if (field.type === "radio" || field.type === "checkbox") field.checked = kept.includes(field.value);
    else field.value = kept;
    const fold = field.closest("details");
    if (fold) fold.open = true;
  }
}

function forgetDraft(at) {
  try {
    localStorage.removeItem(draftKey(at));
  } catch {
    // No storage.
  }
}

// ── Start ────────────────────────────────────────────────────────────────────────────────────────────────────────

typeset(main, main.dataset.katexCss);
if (form) {
  listenToForm();
  restoreDraft();
  startClock();
  if (location.search) history.replaceState(null, "", location.pathname);
  current().scrollIntoView({ block: "start" });
  if (isWriting()) watch();
}
