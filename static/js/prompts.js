// Ticking prompts in a list, and refusing a file that is too large before it is sent.

const list = document.querySelector("[data-prompt-list]");
if (list) {
  const all = list.querySelector("[data-tick-all]");
  const boxes = [...list.querySelectorAll("input[name=ids]")];
  const said = list.querySelector("[data-ticked]");
  const ticked = list.querySelector("input[name=which][value=ticked]");

  function show() {
    const count = boxes.filter((box) => box.checked).length;
    if (all) {
      all.checked = count === boxes.length;
      all.indeterminate = count > 0 && count < boxes.length;
    }
    if (said) {
      said.textContent = count === 0 ? "" : count === 1 ? said.dataset.one : said.dataset.many.replace("%s", count);
    }
  }

  let last = null;
  list.addEventListener("click", (event) => {
    const at = boxes.indexOf(event.target);
    if (at < 0) return;
    if (event.shiftKey && last !== null) {
      for (const box of boxes.slice(Math.min(at, last), Math.max(at, last) + 1)) box.checked = event.target.checked;
    }
    last = at;
  });
  list.addEventListener("change", (event) => {
    if (event.target === all) for (const box of boxes) box.checked = all.checked;
    if (ticked && (event.target === all || boxes.includes(event.target))) ticked.checked = true;
    show();
  });
  show();
}

const upload = document.querySelector("[data-upload]");
if (upload) {
  const file = upload.querySelector("input[type=file]");
  const error = upload.querySelector(".field-error");
  const check = () => {
    const isTooLarge = file.files.length > 0 && file.files[0].size > Number(upload.dataset.limit);
    error.textContent = isTooLarge ? upload.dataset.tooLarge : "";
    error.hidden = !isTooLarge;
    return !isTooLarge;
  };
  file.addEventListener("change", check);
  upload.addEventListener("submit", (event) => {
    if (!check()) event.preventDefault();
  });
}
