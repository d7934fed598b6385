// One listener finds the element that carries `data-hotkey` and presses it, so keys, mouse and screen reader run the
// same code. A cancelable "hotkey" event goes first, for elements that answer a key differently from a click.

const TEXT_FIELDS =
  "textarea, select, [contenteditable], input:not([type=radio], [type=checkbox], [type=button], [type=submit])";

export function setting(name, value) {
  try {
    if (value !== undefined) localStorage.setItem(`touchstone.${name}`, value ? "1" : "");
    return localStorage.getItem(`touchstone.${name}`) === "1";
  } catch {
    return Boolean(value);
  }
}

function pressedKey(event) {
  // On keyboards whose digits need Shift (French), the digit row still votes.
  const digit = /^(?:Digit|Numpad)(\d)$/.exec(event.code)?.[1];
  if (digit && !event.shiftKey) return digit;
  return event.key.length === 1 ? event.key.toLowerCase() : event.key;
}

function visible(scope) {
  return [...scope.querySelectorAll("[data-hotkey]")].filter((element) => element.checkVisibility());
}

document.addEventListener("keydown", (event) => {
  if (event.defaultPrevented || event.repeat || event.isComposing) return;
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest(TEXT_FIELDS)) return;
  const key = pressedKey(event);
  if (key.length === 1 && key !== "?" && setting("keys-off")) return;
  if (key === "Enter" && event.target.closest("button, a, summary")) return;
  const scope = document.querySelector("dialog[open]") ?? document;
  const element = visible(scope).find((candidate) => candidate.dataset.hotkey === key && !candidate.disabled);
  if (!element) return;
  event.preventDefault();
  const goesOn = element.dispatchEvent(new CustomEvent("hotkey", { bubbles: true, cancelable: true, detail: { key } }));
  if (goesOn) element.click();
});

function row(key, label) {
  const line = document.createElement("div");
  const term = document.createElement("dt");
  term.append(Object.assign(document.createElement("kbd"), { textContent: key === "Enter" ? "↵" : key.toUpperCase() }));
  line.append(term, Object.assign(document.createElement("dd"), { textContent: label }));
  return line;
}

/** Fill the help dialog from the keys that work on the page at this moment, and open it. */
export function openKeys(dialog) {
  const elements = [...visible(document.querySelector("main")), ...visible(document.querySelector("header"))];
  const rows = elements.map((element) => row(element.dataset.hotkey, element.dataset.hotkeyLabel));
  dialog.querySelector("[data-keys]").replaceChildren(...rows);
  for (const box of dialog.querySelectorAll("[data-setting]")) {
    box.checked = setting(box.dataset.setting);
    box.onchange = () => setting(box.dataset.setting, box.checked);
  }
  dialog.showModal();
}

document.addEventListener("click", (event) => {
  if (event.target.closest("[data-open-keys]")) openKeys(document.getElementById("keys"));
});
