// The fast path of the compare page. What has been shown and what is fetched ahead lies on one tape; a vote moves
// forward at once and the outbox saves it behind. Undo moves back: a verdict stands until another replaces it.

import { setting } from "app/hotkeys";
import { keepLease } from "app/lease";
import { typeset } from "app/math";
import { fetchHeaders, Outbox } from "app/outbox";
import { toast } from "app/toast";

const CONFIRM_MS = 120; // the mark is seen before the next pair takes its place
const POLL_MS = 15_000;
const KEPT_BEHIND = 50;

const main = document.querySelector("main.compare");
const stage = document.getElementById("stage");
const queueEnd = document.getElementById("queue-end");
const endTitle = queueEnd.querySelector("[data-end-title]");
const endText = queueEnd.querySelector("[data-end-text]");
const emptyTexts = [endTitle.textContent, endText.textContent];
const doneToday = document.querySelector("[data-done-today]");

/** Items: {id, node, sent: null | {kind, choice, note}, undoUrl}; `at` is the one on the screen. */
const tape = [];
let at = 0;
let shownAt = 0;
let hiddenMs = 0;
let hiddenSince = 0;
let confirmTimer = 0;
let trouble = "";
let needsSignIn = false;

const outbox = new Outbox(main.dataset.person, () => [
  ...tape.filter((item) => !item.sent).map((item) => item.id),
  ...outbox.waiting().map((entry) => entry.assignment),
]);

// ── The tape ───────────────────────────────────────────────────────────────────────────────────────────────────

function makeItem(node) {
  node.querySelector("form.vote").noValidate = true;
  typeset(node, main.dataset.katexCss);
  const chosen = node.dataset.chosen;
  const sent = chosen ? { kind: "judgment", choice: chosen, note: noteOf(node) } : null;
  return { id: node.dataset.assignment, node, sent, undoUrl: node.dataset.undoUrl ?? "" };
}

function addItems(html) {
  const holder = document.createElement("template");
  holder.innerHTML = html;
  const known = new Set(tape.map((item) => item.id));
  const isAtEnd = at >= tape.length;
  for (const node of holder.content.querySelectorAll(".comparison")) {
    if (!known.has(node.dataset.assignment)) tape.push(makeItem(document.importNode(node, true)));
  }
  if (isAtEnd) show();
}

const noteOf = (node) => node.querySelector("textarea[name=note]").value.trim();
const choiceOf = (node) => node.querySelector("input[name=choice]:checked")?.value ?? "";
const nameOf = (node, choice) => node.querySelector(`input[value="${choice}"]`)?.dataset.hotkeyLabel ?? "";

function show({ moveFocus = true } = {}) {
  clearTimeout(confirmTimer);
  const item = tape[at];
  queueEnd.hidden = Boolean(item);
  if (!item) {
    stage.replaceChildren();
    showEnd();
    if (moveFocus) endTitle.focus({ preventScroll: true });
    return;
  }
  if (stage.firstElementChild !== item.node) stage.replaceChildren(item.node);
  for (const box of item.node.querySelectorAll(".prompt, .panels, .panel-text")) box.scrollTo(0, 0);
  markTab(item.node, 0);
  item.node.querySelector("[data-number]").textContent = String(Number(doneToday.textContent) + 1);
  updateUndo();
  if (moveFocus) item.node.querySelector("h1").focus({ preventScroll: true });
  shownAt = performance.now();
  requestAnimationFrame(() => (shownAt = performance.now()));
  hiddenMs = 0;
  hiddenSince = document.hidden ? performance.now() : 0;
}

function showEnd() {
  const waiting = outbox.waiting().length;
  endTitle.textContent = waiting ? "Saving your votes" : emptyTexts[0];
  endText.textContent = waiting
    ? `${trouble || "One moment."} What you voted is kept in this browser and sent again by itself; the next pair comes with it.`
    : emptyTexts[1];
  updateUndo();
}

function updateUndo() {
  const canUndo = at > 0 || Boolean(undoUrl());
  for (const button of document.querySelectorAll("[data-undo]")) button.disabled = !canUndo;
}

function undoUrl() {
  if (tape.length) return tape[0].undoUrl;
  return queueEnd.querySelector("form").getAttribute("action") ?? "";
}

function goOn() {
  at += 1;
  // Far behind, only the server remembers.
  while (at > KEPT_BEHIND) {
    tape.shift();
    at -= 1;
  }
  show();
}

// ── Voting, skipping, undoing ──────────────────────────────────────────────────────────────────────────────────

function decidedInMs() {
  const hidden = hiddenMs + (hiddenSince ? performance.now() - hiddenSince : 0);
  return Math.max(0, Math.round(performance.now() - shownAt - hidden));
}

function save(kind) {
  clearTimeout(confirmTimer);
  const item = tape[at];
  if (!item) return;
  const choice = choiceOf(item.node);
  const note = noteOf(item.node);
  if (kind === "judgment" && !choice) {
    toast("Choose first: 1 to 7, or 0 when neither is good.");
    return;
  }
  const isNew = kind === "skip" ? item.sent?.kind !== "skip" : !isSent(item, choice, note);
  if (isNew) {
    if (kind === "judgment" && item.sent?.kind !== "judgment") countDone(1);
    if (kind === "skip" && item.sent?.kind === "judgment") countDone(-1);
    item.sent = { kind, choice, note };
    const fields = kind === "skip" ? {} : { choice, note, decided_in_ms: String(decidedInMs()) };
    outbox.add(kind, item.id, main.dataset.project, fields);
    const text = kind === "skip" ? "Skipped; somebody else gets it." : `${nameOf(item.node, choice)}.`;
    toast(text, { action: "Undo", key: "U", onAction: undo });
  }
  goOn();
}

const isSent = (item, choice, note) =>
  item.sent?.kind === "judgment" && item.sent.choice === choice && item.sent.note === note;

function countDone(change) {
  doneToday.textContent = String(Number(doneToday.textContent) + change);
}

async function undo() {
  clearTimeout(confirmTimer);
  if (at > 0) {
    at -= 1;
    restore(tape[at]);
    show();
    tell(tape[at]);
    return;
  }
  const url = undoUrl();
  if (!url) return;
  let response, text;
  try {
    response = await fetch(url, { method: "POST", headers: fetchHeaders() });
    text = await response.text();
  } catch {
    toast("There is no connection, so the one before cannot be fetched. Nothing is lost.");
    return;
  }
  if (!response.ok) {
    const isSentence = response.headers.get("Content-Type")?.startsWith("text/plain");
    toast(isSentence ? text : "The server cannot bring it back just now. Nothing is lost.");
    return;
  }
  const holder = document.createElement("template");
  holder.innerHTML = text;
  const node = holder.content.querySelector(".comparison");
  if (!node) return;
  tape.unshift(makeItem(document.importNode(node, true)));
  at = 0;
  show();
  tell(tape[0]);
}

function tell(item) {
  const name = item.sent?.kind === "judgment" ? nameOf(item.node, item.sent.choice) : "";
  toast(name ? `Back at “${name}”. It stands until you choose again; Enter keeps it.` : "Back at the one you skipped.");
}

function restore(item) {
  const choice = item.sent?.kind === "judgment" ? item.sent.choice : "";
  for (const radio of item.node.querySelectorAll("input[name=choice]")) radio.checked = radio.value === choice;
}

function choose(radio) {
  radio.checked = true;
  clearTimeout(confirmTimer);
  const hasNote = radio.form.querySelector("details.note").open;
  if (!hasNote && !setting("careful")) confirmTimer = setTimeout(() => save("judgment"), CONFIRM_MS);
}

stage.addEventListener("submit", (event) => {
  event.preventDefault();
  const button = event.submitter;
  if (button?.matches("[data-undo]")) undo();
  else save(button?.matches("[data-skip]") ? "skip" : "judgment");
});

queueEnd.addEventListener("submit", (event) => {
  event.preventDefault();
  undo();
});

// A digit or a pointer votes; the arrow keys inside the radio group only mark, as everywhere else.
stage.addEventListener("hotkey", (event) => {
  const note = event.target.closest("details.note");
  if (note) {
    // At once, not with the toggle event: the next key is text already.
    event.preventDefault();
    note.open = true;
    note.querySelector("textarea").focus();
  } else if (event.target.matches("input[name=choice]")) {
    event.preventDefault();
    choose(event.target);
  }
});
stage.addEventListener("click", (event) => {
  if (event.target.matches("input[name=choice]") && event.detail > 0) choose(event.target);
  const scroll = event.target.closest("[data-scroll]");
  if (scroll) {
    for (const panel of stage.querySelectorAll(".panel-text")) {
      panel.scrollBy({ top: Number(scroll.dataset.scroll) * panel.clientHeight * 0.6 });
    }
  }
});

stage.addEventListener("toggle", (event) => {
  if (event.target.matches("details.note") && event.target.open) event.target.querySelector("textarea").focus();
}, { capture: true });

stage.addEventListener("keydown", (event) => {
  if (!event.target.matches("textarea[name=note]") || event.isComposing) return;
  if (event.key === "Escape") {
    event.preventDefault();
    const note = event.target.closest("details");
    if (!event.target.value.trim()) note.open = false;
    tape[at].node.querySelector("h1").focus({ preventScroll: true });
  } else if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
    event.preventDefault();
    save("judgment");
  }
});

// ── Narrow screens: two panels side by side that are swiped, with tabs that follow ────────────────────────────────

function markTab(node, index) {
  node.querySelectorAll("[data-side-tab]").forEach((tab, position) => {
    tab.toggleAttribute("aria-current", position === index);
    if (position === index) tab.setAttribute("aria-current", "true");
  });
}

stage.addEventListener("click", (event) => {
  const tab = event.target.closest("[data-side-tab]");
  if (!tab) return;
  event.preventDefault();
  const panels = stage.querySelector(".panels");
  const panel = stage.querySelector(tab.getAttribute("href"));
  const isCalm = matchMedia("(prefers-reduced-motion: reduce)").matches;
  panels.scrollTo({
    left: panel.offsetLeft - panels.firstElementChild.offsetLeft,
    behavior: isCalm ? "instant" : "smooth",
  });
});
stage.addEventListener("scroll", (event) => {
  if (!event.target.matches(".panels")) return;
  const panels = event.target;
  markTab(stage, panels.scrollLeft > (panels.scrollWidth - panels.clientWidth) / 2 ? 1 : 0);
}, { capture: true });

// ── Saving, and what stands in its way ───────────────────────────────────────────────────────────────────────────

const pending = document.getElementById("pending");
let pendingTimer = 0;

function showPending() {
  clearTimeout(pendingTimer);
  const count = outbox.waiting().length;
  if (!count) {
    trouble = "";
    pending.hidden = true;
    return;
  }
  const text = `${count} vote${count === 1 ? "" : "s"} waiting to be saved`;
  const reveal = () => {
    pending.textContent = text;
    pending.title = trouble;
    pending.hidden = false;
  };
  // A save that takes its usual moment needs no words.
  if (trouble) reveal();
  else pendingTimer = setTimeout(reveal, 1500);
}

function notice(texts, control) {
  const box = Object.assign(document.createElement("div"), { className: "notice spread" });
  box.dataset.tone = "error";
  box.setAttribute("role", "alert");
  const words = document.createElement("div");
  words.append(...texts.map((text) => Object.assign(document.createElement("p"), { textContent: text })));
  box.append(words, control);
  return box;
}

function showNotices() {
  const boxes = outbox.entries().filter((entry) => entry.refused).map((entry) => {
    const close = Object.assign(document.createElement("button"), {
      type: "button",
      className: "button button-small",
      textContent: "Dismiss",
    });
    close.addEventListener("click", () => outbox.remove(entry));
    const texts = [`Not saved: ${entry.refused}`];
    if (entry.fields.note) texts.push(`Your note: ${entry.fields.note}`);
    return notice(texts, close);
  });
  if (needsSignIn) {
    const link = Object.assign(document.createElement("a"), {
      className: "button button-small",
      href: `/login/?next=${encodeURIComponent(location.pathname)}`,
      textContent: "Sign in again",
    });
    boxes.unshift(notice(["You are signed out. Your votes wait in this browser until you are back."], link));
  }
  document.getElementById("notices").replaceChildren(...boxes);
}

outbox.addEventListener("change", () => {
  showPending();
  showNotices();
  if (at >= tape.length) showEnd();
});
outbox.addEventListener("waiting", (event) => {
  trouble = event.detail.sentence;
  needsSignIn = event.detail.needsSignIn;
  showPending();
  showNotices();
  if (at >= tape.length) showEnd();
});
outbox.addEventListener("saved", (event) => {
  trouble = "";
  needsSignIn = false;
  showNotices();
  lease.renewed();
  const { entry, html } = event.detail;
  if (entry.project === main.dataset.project) addItems(html);
});
outbox.addEventListener("refused", (event) => {
  const { entry, status } = event.detail;
  const index = tape.findIndex((item) => item.id === entry.assignment);
  if (index < 0 || index >= at || status === 404) return;
  // It comes back, as it was filled in, right after the one on the screen.
  const [item] = tape.splice(index, 1);
  at -= 1;
  if (item.sent.kind === "judgment") countDone(-1);
  item.sent = null;
  const isAtEnd = at >= tape.length;
  tape.splice(at + 1, 0, item);
  if (isAtEnd) show();
});

const leaseBadge = document.getElementById("lease");
const lease = keepLease({
  url: main.dataset.leaseUrl,
  seconds: Number(main.dataset.leaseSeconds),
  headers: fetchHeaders,
  show(sentence) {
    const text = tape[at] && !tape[at].sent ? sentence : "";
    leaseBadge.hidden = !text;
    if (leaseBadge.textContent !== text) leaseBadge.textContent = text;
  },
});

async function poll() {
  if (document.hidden || at < tape.length || outbox.waiting().length) return;
  try {
    const response = await fetch(main.dataset.compareUrl, { headers: fetchHeaders() });
    if (response.status === 200) addItems(await response.text());
  } catch {
    // The next round looks again.
  }
}
setInterval(poll, POLL_MS);

document.addEventListener("visibilitychange", () => {
  if (document.hidden) {
    hiddenSince = performance.now();
  } else {
    hiddenMs += hiddenSince ? performance.now() - hiddenSince : 0;
    hiddenSince = 0;
    poll();
    outbox.send();
  }
});

// ── Start ────────────────────────────────────────────────────────────────────────────────────────────────────────

function start() {
  const nodes = [...stage.querySelectorAll(".comparison")];
  const ahead = document.getElementById("waiting");
  if (ahead) nodes.push(...document.importNode(ahead.content, true).querySelectorAll(".comparison"));
  const items = nodes.map(makeItem);
  // Votes from before a reload that the server does not have yet: those pairs lie behind, not ahead.
  for (const entry of outbox.waiting()) {
    const item = items.find((candidate) => candidate.id === entry.assignment);
    if (item) item.sent = { kind: entry.kind, choice: entry.fields.choice ?? "", note: entry.fields.note ?? "" };
  }
  const waitingIds = new Set(outbox.waiting().map((entry) => entry.assignment));
  const behind = items.filter((item) => waitingIds.has(item.id));
  tape.push(...behind, ...items.filter((item) => !waitingIds.has(item.id)));
  if (tape.length) tape[0].undoUrl ||= items[0].undoUrl;
  at = behind.length;
  for (const item of behind) restore(item);
  // The address of an undone pair is for people without scripts; a reload goes on with the queue.
  if (location.search) history.replaceState(null, "", location.pathname);
  show({ moveFocus: false });
  const guidelines = document.getElementById("guidelines");
  if (guidelines) typeset(guidelines, main.dataset.katexCss);
  showPending();
  showNotices();
  outbox.send();
}

start();
