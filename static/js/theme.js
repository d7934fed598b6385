const CYCLE = { auto: "light", light: "dark", dark: "auto" };
const NAMES = { auto: "Theme: auto", light: "Theme: light", dark: "Theme: dark" };
const root = document.documentElement;

function show() {
  for (const button of document.querySelectorAll("[data-theme-toggle]")) {
    button.textContent = NAMES[root.dataset.theme] ?? NAMES.auto;
  }
}

document.addEventListener("click", (event) => {
  if (!event.target.closest("[data-theme-toggle]")) return;
  root.dataset.theme = CYCLE[root.dataset.theme] ?? "light";
  try {
    localStorage.setItem("touchstone.theme", root.dataset.theme);
  } catch {
    // Private mode: the choice lasts for this page.
  }
  show();
});

show();
