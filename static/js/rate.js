// The page for marking one response. The form is the browser's own; this adds keys, times and the lease.

import "app/hotkeys";
import { keepLease } from "app/lease";
import { typeset } from "app/math";
import { fetchHeaders } from "app/outbox";

const main = document.querySelector("main.rate");
const form = document.getElementById("rate");

if (form) {
  const shownAt = performance.now();
  let firstKeyAt = null;
  const rows = [...form.querySelectorAll(".rate-mark")];
  const radios = (row) => [...row.querySelectorAll("input[type=radio]")];

  function mark(row, value) {
    const choice = radios(row).find((input) => input.value === value);
    choice.checked = true;
    choice.focus({ preventScroll: false });
  }

  // The first press passes, the next one fails, and so on.
  for (const row of rows) {
    row.addEventListener("hotkey", (event) => {
      if (event.target !== row) return;
      event.preventDefault();
      mark(row, radios(row).some((input) => input.checked && input.value === "pass") ? "fail" : "pass");
    });
  }

  function move(step) {
    const at = rows.findIndex((row) => row.contains(document.activeElement));
    const row = rows[at < 0 ? (step > 0 ? 0 : rows.length - 1) : Math.min(Math.max(at + step, 0), rows.length - 1)];
    (radios(row).find((input) => input.checked) ?? radios(row)[0]).focus();
  }

  form.querySelector("[data-all]").addEventListener("click", () => rows.forEach((row) => mark(row, "pass")));

  document.addEventListener("keydown", (event) => {
    firstKeyAt ??= performance.now();
    if (event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.target.closest("textarea")) {
      if (event.key === "Escape") event.target.blur();
      return;
    }
    if (document.querySelector("dialog[open], :popover-open")) return;
    if (event.key === "j" || event.key === "k") {
      event.preventDefault();
      move(event.key === "j" ? 1 : -1);
    }
  });
  form.note.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey) && !event.isComposing) {
      event.preventDefault();
      form.requestSubmit(form.querySelector("[data-save]"));
    }
  });
  // At once, or the first letters of the note would still be keys.
  form.querySelector("summary").addEventListener("hotkey", (event) => {
    event.preventDefault();
    event.target.closest("details").open = true;
    form.note.focus();
  });

  form.addEventListener("submit", () => {
    form.decided_in_ms.value = String(Math.round(performance.now() - shownAt));
    if (firstKeyAt !== null) form.first_key_ms.value = String(Math.round(firstKeyAt - shownAt));
    setTimeout(() => form.querySelectorAll("[type=submit]").forEach((button) => (button.disabled = true)));
  });
  addEventListener("pageshow", () => form.querySelectorAll("[type=submit]").forEach((button) => (button.disabled = false)));

  const badge = document.getElementById("lease");
  keepLease({
    url: main.dataset.leaseUrl,
    seconds: Number(main.dataset.leaseSeconds),
    headers: fetchHeaders,
    show(sentence) {
      badge.hidden = !sentence;
      if (badge.textContent !== sentence) badge.textContent = sentence;
    },
  });
  typeset(main, main.dataset.katexCss);
}
