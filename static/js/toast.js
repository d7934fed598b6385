const region = document.getElementById("toasts");
let current = null;
let timer = 0;

/** Show one short sentence in the polite live region; a newer one takes its place. */
export function toast(text, { action = null, key = "", onAction = null, seconds = 5 } = {}) {
  const box = document.createElement("div");
  box.className = "toast";
  box.append(Object.assign(document.createElement("span"), { textContent: text }));
  if (action) {
    const button = Object.assign(document.createElement("button"), { type: "button", textContent: action });
    button.addEventListener("click", onAction);
    box.append(button);
    if (key) box.append(Object.assign(document.createElement("kbd"), { textContent: key }));
  }
  region.replaceChildren(box);
  current = box;
  clearTimeout(timer);
  timer = setTimeout(() => current === box && box.remove(), seconds * 1000);
}

/** Take away what is shown: it has been answered. */
export function clearToast() {
  region.replaceChildren();
}
