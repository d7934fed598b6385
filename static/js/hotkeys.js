// One listener finds the element that carries `data-hotkey` and presses it, so keys, mouse and screen reader run the
// same code. A cancelable "hotkey" event goes first, for elements that answer a key differently from a click.
//
// `data-hotkey` names the key that an element has unless the person chose another one, so the same key means the same
// on every page. Inside `data-keys-off` no key works. An open dialog, or an open popover with `data-key-scope`, has all
// keys to itself.

const TEXT_FIELDS =
  "textarea, select, [contenteditable], input:not([type=radio], [type=checkbox], [type=button], [type=submit])";
const FIXED = new Set(["Enter", "?"]);

export function setting(name, value) {
  try {
    if (value !== undefined) localStorage.setItem(`touchstone.${name}`, value ? "1" : "");
    return localStorage.getItem(`touchstone.${name}`) === "1";
  } catch {
    return Boolean(value);
  }
}

// ── Which key an element has ─────────────────────────────────────────────────────────────────────────────────────

/** The person's own keys by the usual ones. */
let chosen = {};
try {
  chosen = JSON.parse(localStorage.getItem("touchstone.keys")) ?? {};
} catch {
  // No storage, or somebody wrote rubbish into it: the usual keys.
}

export const keyOf = (element) => chosen[element.dataset.hotkey] ?? element.dataset.hotkey;

function remember() {
  try {
    localStorage.setItem("touchstone.keys", JSON.stringify(chosen));
  } catch {
    // No storage: the keys last for this page.
  }
}

const capOf = (key) => (key === "Enter" ? "↵" : key.toUpperCase());

/** How the key that usually is `usual` is written on the page. */
export const capFor = (usual) => capOf(chosen[usual] ?? usual);

/** Write the keys that differ from the usual ones on the things that they press. */
export function labelKeys(root = document) {
  for (const element of root.querySelectorAll("[data-hotkey]")) {
    const key = keyOf(element);
    if (key === element.dataset.hotkey && !element.dataset.relabelled) continue;
    element.dataset.relabelled = "";
    if (element.hasAttribute("aria-keyshortcuts")) element.setAttribute("aria-keyshortcuts", key.toUpperCase());
    const cap = (element.closest("label") ?? element).querySelector("kbd");
    if (cap) cap.textContent = capOf(key);
  }
}

// ── Keys being pressed ───────────────────────────────────────────────────────────────────────────────────────────

function pressedKey(event) {
  // On keyboards whose digits need Shift (French), the digit row still votes.
  const digit = /^(?:Digit|Numpad)(\d)$/.exec(event.code)?.[1];
  if (digit && !event.shiftKey) return digit;
  if (event.key.length !== 1) return event.key;
  // On a Cyrillic, Greek or Arabic keyboard the key at the place of the letter.
  const letter = event.key > "\u007f" && /^Key([A-Z])$/.exec(event.code)?.[1];
  return (letter || event.key).toLowerCase();
}

function reachable(scope) {
  return [...scope.querySelectorAll("[data-hotkey]")].filter(
    (element) => element.checkVisibility() && !element.closest("[data-keys-off]"),
  );
}

const openScope = () =>
  document.querySelector("dialog[open]") ?? document.querySelector("[data-key-scope]:popover-open") ?? document;

function outsideMenus(element) {
  return !element.closest("[popover], dialog");
}

document.addEventListener("keydown", (event) => {
  if (event.defaultPrevented || event.repeat || event.isComposing || event.keyCode === 229) return;
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest(TEXT_FIELDS)) return;
  const key = pressedKey(event);
  if (key.length === 1 && key !== "?" && setting("keys-off")) return;
  if (key === "Enter" && event.target.closest("button, a, summary")) return;
  const scope = openScope();
  const element = reachable(scope).find(
    (candidate) =>
      keyOf(candidate) === key && !candidate.matches(":disabled") && (scope !== document || outsideMenus(candidate)),
  );
  if (!element) return;
  event.preventDefault();
  const goesOn = element.dispatchEvent(new CustomEvent("hotkey", { bubbles: true, cancelable: true, detail: { key } }));
  if (goesOn) element.click();
  if (key !== "Enter") leaveButton(event.target, element);
});

/** After a key, Enter must mean what it means on the page, and not press again whatever was pressed before. */
function leaveButton(button, pressed) {
  const isLeft = button !== pressed && button === document.activeElement && button.matches("button, a, summary");
  if (!isLeft || openScope() !== document) return;
  if (pressed.matches("[type=radio], [type=checkbox]")) pressed.focus({ preventScroll: true });
  else button.blur(); // Tab still goes on from there
}

// ── The dialog that shows and changes them ───────────────────────────────────────────────────────────────────────

let waitingFor = null;

const fillIn = (sentence, values) => sentence.replace(/\{(\w+)\}/g, (_, name) => values[name]);

function actions() {
  const elements = new Map();
  for (const element of reachable(document).filter(outsideMenus)) {
    if (!elements.has(element.dataset.hotkey)) elements.set(element.dataset.hotkey, element);
  }
  return [...elements.values()];
}

function row(element) {
  const line = document.createElement("div");
  const term = document.createElement("dt");
  const label = element.dataset.hotkeyLabel;
  const cap = Object.assign(document.createElement("kbd"), { textContent: capOf(keyOf(element)) });
  const { change } = document.getElementById("keys").dataset;
  if (FIXED.has(element.dataset.hotkey) || !change) {
    term.append(cap);
  } else {
    const button = Object.assign(document.createElement("button"), { type: "button", className: "key-button" });
    button.dataset.key = element.dataset.hotkey;
    button.setAttribute("aria-label", fillIn(change, { label }));
    button.append(cap);
    term.append(button);
  }
  line.append(term, Object.assign(document.createElement("dd"), { textContent: label }));
  return line;
}

function fill(dialog) {
  dialog.querySelector("[data-keys]").replaceChildren(...actions().map(row));
  for (const box of dialog.querySelectorAll("[data-setting]")) {
    box.checked = setting(box.dataset.setting);
    box.onchange = () => {
      setting(box.dataset.setting, box.checked);
      document.dispatchEvent(new CustomEvent("setting", { detail: box.dataset.setting }));
    };
  }
  const size = document.documentElement.dataset.textSize || "2";
  for (const box of dialog.querySelectorAll("[data-text-size]")) {
    box.checked = box.value === size;
    box.onchange = () => setTextSize(box.value);
  }
}

function setTextSize(size) {
  document.documentElement.dataset.textSize = size;
  try {
    localStorage.setItem("touchstone.text-size", size);
  } catch {
    // No storage: the size lasts for this page.
  }
}

function stopWaiting(dialog, problem = "") {
  const usual = waitingFor?.dataset.key;
  waitingFor = null;
  const alert = dialog.querySelector("[data-keys-problem]");
  if (alert) alert.textContent = problem;
  fill(dialog);
  if (usual) dialog.querySelector(`[data-key="${CSS.escape(usual)}"]`)?.focus();
}

/** Fill the dialog from the keys that work on the page at this moment, and open it. */
export function openKeys(dialog) {
  stopWaiting(dialog);
  dialog.showModal();
}

function rebind(dialog, event) {
  event.preventDefault();
  event.stopPropagation();
  if (["Shift", "Control", "Alt", "Meta"].includes(event.key)) return;
  if (event.key === "Escape") return stopWaiting(dialog);
  const usual = waitingFor.dataset.key;
  const key = pressedKey(event);
  const isPlain = key.length === 1 && key.trim() && !event.ctrlKey && !event.metaKey && !event.altKey;
  if (!isPlain || FIXED.has(key)) return stopWaiting(dialog, fillIn(dialog.dataset.notAllowed, { key: event.key }));
  const other = actions().find((element) => element.dataset.hotkey !== usual && keyOf(element) === key);
  if (other) {
    return stopWaiting(dialog, fillIn(dialog.dataset.taken, { key: capOf(key), label: other.dataset.hotkeyLabel }));
  }
  if (key === usual) delete chosen[usual];
  else chosen[usual] = key;
  remember();
  labelKeys();
  stopWaiting(dialog);
}

document.addEventListener("click", (event) => {
  const dialog = document.getElementById("keys");
  if (!dialog) return;
  const button = event.target.closest("[data-key]");
  if (event.target.closest("[data-open-keys]")) {
    openKeys(dialog);
  } else if (button) {
    stopWaiting(dialog);
    waitingFor = dialog.querySelector(`[data-key="${CSS.escape(button.dataset.key)}"]`);
    waitingFor.querySelector("kbd").textContent = dialog.dataset.press;
    waitingFor.focus();
  } else if (event.target.closest("[data-keys-reset]")) {
    chosen = {};
    remember();
    labelKeys();
    stopWaiting(dialog);
  }
});
document.addEventListener(
  "keydown",
  (event) => {
    const dialog = document.getElementById("keys");
    if (waitingFor && dialog?.open) rebind(dialog, event);
  },
  { capture: true },
);

labelKeys();
