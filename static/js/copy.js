// Buttons that put a field's text on the clipboard: <button data-copy="FIELD-ID" data-copied="Copied">.

for (const button of document.querySelectorAll("[data-copy]")) {
  const field = document.getElementById(button.dataset.copy);
  field.addEventListener("focus", () => field.select());
  button.addEventListener("click", async () => {
    field.focus();
    try {
      await navigator.clipboard.writeText(field.value);
    } catch {
      return; // no permission: the text is selected, and Ctrl C copies it
    }
    button.textContent = button.dataset.copied;
  });
}
