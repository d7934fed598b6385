// The fast path of the compare page. What has been shown and what is fetched ahead lies on one tape; a vote moves
// forward at once and the outbox saves it behind. Undo moves back: a verdict stands until another replaces it.

import { Answering, betterPosition, emptyAnswer, fromStored, sameAnswer, toFields } from "app/answering";
import { Drafts } from "app/drafts";
import { Guidelines } from "app/guidelines";
import { capFor } from "app/hotkeys";
import { keepLease } from "app/lease";
import { typeset } from "app/math";
import { fetchHeaders, Outbox } from "app/outbox";
import { addTools, noticeSimilarity, Reading } from "app/reading";
import { SavingStatus } from "app/saving-status";
import { toast } from "app/toast";
import { page, say } from "app/words";

const POLL_MS = 15_000;
const KEPT_BEHIND = 50;
const BOUNCE_MS = 150; // the same key twice within this is a finger that trembled, not a second opinion

const main = document.querySelector("main.compare");
const stage = document.getElementById("stage");
const form = document.getElementById("vote");
const queueEnd = document.getElementById("queue-end");
const endTitle = queueEnd.querySelector("[data-end-title]");
const endText = queueEnd.querySelector("[data-end-text]");
const emptyTexts = [endTitle.textContent, endText.textContent];
const doneToday = document.querySelector("[data-done-today]");
const leftToday = document.querySelector("[data-left]");
const totalToday = document.querySelector("[data-total]");
const bar = document.querySelector(".bar-progress");
const { project } = main.dataset;

/**
 * Items: {id, node, count, isRanked, answer, sent: null | {kind, answer}, previous}; `at` is the one on the screen.
 * `answer` is what its form holds, `sent` what was given to the outbox or stands on the server.
 */
const tape = [];
let at = 0;
let shownAt = 0;
let shownTime = new Date();
let firstKeyMs = null;
let hiddenMs = 0;
let hiddenSince = 0;
let lastVote = { choice: "", at: -Infinity };

const drafts = new Drafts(main.dataset.person);
const outbox = new Outbox(main.dataset.person, () => [
  ...tape.filter((item) => !item.sent).map((item) => item.id),
  ...outbox.waiting().map((entry) => entry.assignment),
]);
const guidelines = new Guidelines(main.dataset.guidelinesUrl, main.dataset.katexCss);
const status = new SavingStatus(outbox, guidelines);
const answering = new Answering(form);
const reading = new Reading(stage);
/** What only some protocols need: loaded where it is met. Each has open(item). */
const companions = [];
let editing = null;
let wantsEdit = false; // somebody asked for the editor before they chose a side

// Toasts and menus stand above the form, however tall it is.
new ResizeObserver(([entry]) => {
  document.documentElement.style.setProperty("--vote-height", `${entry.target.offsetHeight}px`);
}).observe(form);

const idle = globalThis.requestIdleCallback ?? ((work) => setTimeout(work, 50));
const post = (id, action, body) => fetch(`/assignments/${id}/${action}`, { method: "POST", headers: fetchHeaders(), body });

// ── The tape ───────────────────────────────────────────────────────────────────────────────────────────────────

function makeItem(node) {
  const { assignment: id, filled, previous = "" } = node.dataset;
  const stored = filled ? fromStored(JSON.parse(filled)) : null;
  const item = {
    id,
    node,
    previous,
    count: node.querySelectorAll(".panel").length,
    isRanked: Boolean(node.querySelector("input[name=rank]")),
    answer: drafts.load(id) ?? stored ?? emptyAnswer(),
    sent: stored?.choice ? { kind: "judgment", answer: stored } : null,
  };
  item.hasDraft = Boolean(drafts.load(id));
  addTools(item);
  typeset(node, main.dataset.katexCss).then(() =>
    idle(() => {
      noticeSimilarity(item);
      reading.refresh(item);
    }),
  );
  return item;
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

function show({ moveFocus = true } = {}) {
  editing?.close();
  wantsEdit = false;
  const item = tape[at];
  queueEnd.hidden = Boolean(item);
  form.hidden = !item;
  if (!item) {
    stage.replaceChildren();
    reading.open(null);
    showEnd();
    if (moveFocus) endTitle.focus({ preventScroll: true });
    return;
  }
  const columns = form.querySelectorAll(".scores-head [data-position]").length;
  if (columns && columns < item.count) return location.reload(); // the form was made for shorter comparisons
  if (stage.firstElementChild !== item.node) stage.replaceChildren(item.node);
  item.node.querySelector("[data-number]").textContent = String(Number(doneToday.textContent) + 1);
  answering.open(item);
  reading.open(item);
  for (const companion of companions) companion.open(item);
  if (item.isRanked) loadRanking();
  updateTools();
  if (moveFocus) item.node.querySelector("h1").focus({ preventScroll: true });
  if (item.hasDraft) toast(say("draftRestored"));
  item.hasDraft = false;
  startClock();
}

function showEnd() {
  const waiting = outbox.waiting().length;
  endTitle.textContent = waiting ? say("saving") : emptyTexts[0];
  endText.textContent = waiting ? say("savingText", { trouble: status.trouble || say("oneMoment") }) : emptyTexts[1];
  updateTools();
}

function updateTools() {
  const canUndo = at > 0 || Boolean(previousId());
  for (const button of document.querySelectorAll("[data-undo]")) button.disabled = !canUndo;
  const label = form.querySelector("[data-edit-label]");
  if (!label || !tape[at]) return;
  const better = betterPosition(answering.read().choice);
  label.textContent = better === null ? say("editBetter") : say("editSide", { name: "AB"[better] });
}

function previousId() {
  if (tape.length) return tape[0].previous;
  return /\/assignments\/([^/]+)\//.exec(queueEnd.querySelector("form").getAttribute("action") ?? "")?.[1] ?? "";
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

// ── The time that somebody looked at it ────────────────────────────────────────────────────────────────────────

function startClock() {
  shownTime = new Date();
  shownAt = performance.now();
  requestAnimationFrame(() => (shownAt = performance.now()));
  firstKeyMs = null;
  hiddenMs = 0;
  hiddenSince = document.hidden ? performance.now() : 0;
}

function lookedMs() {
  const hidden = hiddenMs + (hiddenSince ? performance.now() - hiddenSince : 0);
  return Math.max(0, Math.round(performance.now() - shownAt - hidden));
}

for (const kind of ["keydown", "pointerdown"]) {
  document.addEventListener(kind, () => (firstKeyMs ??= lookedMs()), { capture: true, passive: true });
}

// ── Voting, skipping, flagging, undoing ────────────────────────────────────────────────────────────────────────

function save() {
  const item = tape[at];
  if (!item) return;
  const answer = answering.read();
  const missing = answering.missing(answer);
  if (missing) {
    toast(missing.sentence);
    missing.element?.focus();
    return;
  }
  item.answer = answer;
  if (item.sent?.kind !== "judgment" || !sameAnswer(item.sent.answer, answer)) {
    if (item.sent?.kind !== "judgment") countDone(1);
    item.sent = { kind: "judgment", answer };
    const fields = [
      ...toFields(answer, item.count),
      ["guideline_version", String(guidelines.version)],
      ["decided_in_ms", String(lookedMs())],
      ["client_at", new Date().toISOString()],
    ];
    if (firstKeyMs !== null) fields.push(["first_key_ms", String(firstKeyMs)]);
    outbox.add("judgment", item.id, project, fields, answer);
    const name = answering.nameOf(answer);
    const unsentEdit = answer.edited && answer.edited.position !== betterPosition(answer.choice);
    const text = unsentEdit
      ? say("editLeft", { name: "AB"[answer.edited.position] })
      : say(answer.choice === "ranked" ? "ranked" : "voted", { choice: name, ranks: name });
    toast(text, { action: say("undo"), key: capFor("z"), onAction: undo });
    answering.flash(answer);
  }
  drafts.forget(item.id);
  goOn();
}

function skip(reason) {
  const item = tape[at];
  if (!item) return;
  item.answer = answering.read();
  if (item.sent?.kind !== "skip") {
    if (item.sent?.kind === "judgment") countDone(-1);
    item.sent = { kind: "skip", answer: item.answer };
    outbox.add("skip", item.id, project, reason ? [["reason", reason]] : []);
    toast(say("skipped"), { action: say("undo"), key: capFor("z"), onAction: undo });
  }
  goOn();
}

function flag(reason) {
  outbox.add("flag", tape[at].id, project, [["reason", reason]]);
  toast(say("flagged"));
}

function countDone(change) {
  const done = Number(doneToday.textContent) + change;
  doneToday.textContent = String(done);
  if (leftToday) leftToday.textContent = String(Math.max(0, Number(leftToday.textContent) - change));
  if (!totalToday) return;
  // What arrived while the page was open was not in the total.
  const total = Math.max(done, Number(totalToday.textContent));
  totalToday.textContent = String(total);
  bar.max = total;
  bar.value = done;
}

async function undo() {
  if (at > 0) {
    leave();
    at -= 1;
    show();
    tell(tape[at]);
    return;
  }
  const id = previousId();
  if (!id) return;
  let response, text;
  try {
    response = await post(id, "undo");
    text = await response.text();
  } catch {
    toast(say("undoOffline"));
    return;
  }
  if (!response.ok) {
    const isSentence = response.headers.get("Content-Type")?.startsWith("text/plain");
    toast(isSentence ? text : say("undoFailed"));
    return;
  }
  const holder = document.createElement("template");
  holder.innerHTML = text;
  const node = holder.content.querySelector(".comparison");
  if (!node) return;
  leave();
  tape.unshift(makeItem(document.importNode(node, true)));
  at = 0;
  show();
  tell(tape[0]);
}

/** Before another one comes to the screen without a vote: what was filled in stays with it. */
function leave() {
  if (tape[at]) tape[at].answer = answering.read();
}

function tell(item) {
  const isVote = item.sent?.kind === "judgment";
  toast(isVote ? say("backAt", { choice: answering.nameOf(item.sent.answer) }) : say("backAtSkipped"));
}

function chosen({ isVerdict, element }) {
  updateTools();
  if (!isVerdict || !answering.completesAtOnce) {
    if (isVerdict && wantsEdit) edit();
    return;
  }
  const now = performance.now();
  const isBounce = element.value === lastVote.choice && now - lastVote.at < BOUNCE_MS;
  if (isBounce) {
    element.checked = false;
    return;
  }
  lastVote = { choice: element.value, at: now };
  save();
}

function edit() {
  wantsEdit = false;
  const { choice } = answering.read();
  const better = betterPosition(choice);
  if (editing.isOpen) return editing.close();
  if (better !== null) {
    answering.holds = true; // from here on Enter saves
    // What is typed until the text is there must not be taken for keys.
    main.toggleAttribute("data-keys-off", true);
    editing.edit(tape[at], better).finally(() => main.toggleAttribute("data-keys-off", false));
  } else if (choice) {
    toast(say("editNoSide"));
  } else {
    answering.holds = wantsEdit = true;
    toast(say("editChoose"));
  }
}

function keepDraft() {
  const item = tape[at];
  if (!item) return;
  drafts.keep(item.id, () => (tape[at] === item ? answering.read() : item.answer));
  updateTools();
}

answering.addEventListener("choose", (event) => chosen(event.detail));
answering.addEventListener("input", keepDraft);

form.addEventListener("submit", (event) => {
  event.preventDefault();
  const button = event.submitter;
  button?.closest("[popover]")?.hidePopover();
  if (button?.matches("[data-undo]")) undo();
  else if (button?.matches("[data-skip]")) skip(button.value);
  else if (button?.matches("[data-flag]")) flag(button.value);
  else save();
});
queueEnd.addEventListener("submit", (event) => {
  event.preventDefault();
  undo();
});
// The second half of a double click belongs to the pair that is gone.
form.addEventListener(
  "click",
  (event) => {
    if (event.detail > 1 && event.target.closest(".verdict, [data-save]")) event.preventDefault();
    if (event.detail > 1 && event.target.closest(".verdict, [data-save]")) event.stopPropagation();
  },
  { capture: true },
);
form.addEventListener("hotkey", (event) => {
  if (!event.target.closest("details.note")) return;
  // At once, not with the toggle event: the next key is text already.
  event.preventDefault();
  answering.openNote();
});
form.addEventListener("click", (event) => event.target.closest("[data-edit]") && edit());
form.addEventListener("keydown", (event) => {
  if (!event.target.matches("[name=note]") || event.isComposing) return;
  if (event.key === "Escape") {
    event.preventDefault();
    const note = event.target.closest("details");
    if (!event.target.value.trim() && !page.noteRequired) note.open = false;
    tape[at].node.querySelector("h1").focus({ preventScroll: true });
  } else if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
    event.preventDefault();
    save();
  }
});

// ── Saving, and what stands in its way ───────────────────────────────────────────────────────────────────────────

for (const kind of ["change", "waiting"]) {
  outbox.addEventListener(kind, () => at >= tape.length && showEnd());
}
outbox.addEventListener("saved", ({ detail: { entry, html } }) => {
  lease.renewed();
  if (entry.project === project) addItems(html);
});
outbox.addEventListener("refused", ({ detail: { entry, status: code } }) => {
  const index = tape.findIndex((item) => item.id === entry.assignment);
  if (index < 0 || index >= at || code === 404 || entry.kind === "flag") return;
  // It comes back, as it was filled in, right after the one on the screen.
  const [item] = tape.splice(index, 1);
  at -= 1;
  if (item.sent.kind === "judgment") countDone(-1);
  item.sent = null;
  const isAtEnd = at >= tape.length;
  tape.splice(at + 1, 0, item);
  if (isAtEnd) show();
});
outbox.addEventListener("elsewhere", ({ detail: { entry } }) => {
  const index = tape.findIndex((item) => item.id === entry.assignment);
  if (entry.kind === "flag" || index < at || tape[index].sent) return;
  const [item] = tape.splice(index, 1);
  item.sent = { kind: entry.kind, answer: entry.answer ?? emptyAnswer() };
  item.answer = item.sent.answer;
  tape.splice(at, 0, item);
  at += 1;
  if (index !== at - 1) return;
  show();
  toast(say("judgedElsewhere"));
});

const leaseBadge = document.getElementById("lease");
const lease = keepLease({
  url: main.dataset.leaseUrl,
  seconds: Number(main.dataset.leaseSeconds),
  headers: fetchHeaders,
  body: () => (tape[at] ? new URLSearchParams({ shown: tape[at].id, shown_at: shownTime.toISOString() }) : undefined),
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
    else if (response.status === 403) endText.textContent = await response.text();
  } catch {
    // The next round looks again.
  }
}
setInterval(poll, POLL_MS);

document.addEventListener("visibilitychange", () => {
  if (document.hidden) {
    hiddenSince = performance.now();
    drafts.flush();
  } else {
    hiddenMs += hiddenSince ? performance.now() - hiddenSince : 0;
    hiddenSince = 0;
    poll();
    outbox.send();
  }
});
addEventListener("pagehide", () => drafts.flush());
// A page that the back button brings from memory knows nothing of what happened since.
addEventListener("pageshow", (event) => event.persisted && location.reload());

// ── Start ────────────────────────────────────────────────────────────────────────────────────────────────────────

let ranking = null;

/** The first comparison of more than two brings what ranks them. */
async function loadRanking() {
  if (ranking) return;
  ranking = import("app/ranking");
  const { Ranking } = await ranking;
  companions.push(new Ranking(stage, form, answering));
  if (tape[at]) companions.at(-1).open(tape[at]);
}

async function loadCompanions() {
  if (form.querySelector("[data-mark]")) {
    const { Marking } = await import("app/marking");
    const marking = new Marking(stage, form);
    marking.addEventListener("input", keepDraft);
    companions.push(marking);
  }
  if (form.querySelector("[data-edit]")) {
    const { Editing } = await import("app/editing");
    editing = new Editing();
    editing.addEventListener("input", keepDraft);
    editing.addEventListener("save", save);
    editing.addEventListener("close", () => tape[at]?.node.querySelector("h1").focus({ preventScroll: true }));
  }
}

function start() {
  const nodes = [...stage.querySelectorAll(".comparison")];
  const ahead = document.getElementById("waiting");
  if (ahead) nodes.push(...document.importNode(ahead.content, true).querySelectorAll(".comparison"));
  const items = nodes.map(makeItem);
  // Votes from before a reload that the server does not have yet: those pairs lie behind, not ahead.
  const waiting = outbox.waiting().filter((entry) => entry.kind !== "flag");
  for (const entry of waiting) {
    const item = items.find((candidate) => candidate.id === entry.assignment);
    if (!item) continue;
    item.answer = entry.answer ?? emptyAnswer();
    item.sent = { kind: entry.kind, answer: item.answer };
  }
  const waitingIds = new Set(waiting.map((entry) => entry.assignment));
  const behind = items.filter((item) => waitingIds.has(item.id));
  tape.push(...behind, ...items.filter((item) => !waitingIds.has(item.id)));
  if (tape.length) tape[0].previous ||= items[0].previous;
  at = behind.length;
  // The address of an undone pair is for people without scripts; a reload goes on with the queue.
  if (location.search) history.replaceState(null, "", location.pathname);
  show({ moveFocus: false });
  status.show();
  outbox.send();
  // A key that came before would have met half a page.
  main.removeAttribute("data-keys-off");
}

await loadCompanions();
start();
