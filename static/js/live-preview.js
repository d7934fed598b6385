// A form that shows what it describes: posts itself to data-preview-url while it is being filled in, and puts the answer
// in place of the element of the same id. Without scripts its Preview button does the same by loading the page.

const PAUSE_MS = 250;

for (const form of document.querySelectorAll("form[data-preview-url]")) {
  form.querySelector("[data-preview-button]").hidden = true;
  let timer = 0;
  let asked = null;

  const show = async () => {
    asked?.abort();
    asked = new AbortController();
    try {
      const answer = await fetch(form.dataset.previewUrl, { method: "POST", body: new FormData(form), signal: asked.signal });
      if (answer.status !== 200) return; // half-typed: what was shown stays until the form fits together again
      const holder = document.createElement("template");
      holder.innerHTML = await answer.text();
      const fragment = holder.content.firstElementChild;
      document.getElementById(fragment.id).replaceWith(fragment);
    } catch (error) {
      if (error.name !== "AbortError") form.querySelector("[data-preview-button]").hidden = false;
    }
  };

  form.addEventListener("input", () => {
    clearTimeout(timer);
    timer = setTimeout(show, PAUSE_MS);
  });
}
