const CYCLE = { auto: "light", light: "dark", dark: "auto" };
const NAMES = { auto: "Theme: as the system", light: "Theme: light", dark: "Theme: dark" };
const root = document.documentElement;

function show() {
  for (const button of document.querySelectorAll("[data-theme-toggle]")) {
    button.title = NAMES[root.dataset.theme] ?? NAMES.auto;
    button.setAttribute("aria-label", button.title);
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
