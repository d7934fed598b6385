const SLICE_MS = 12;
let katex = null;

function load(stylesheet) {
  katex ??= import("vendor/katex").then(() => {
    const link = Object.assign(document.createElement("link"), { rel: "stylesheet", href: stylesheet });
    document.head.append(link);
    return window.katex;
  });
  return katex;
}

/** Typeset the formulas under `root`; KaTeX is fetched when the first one is met. */
export async function typeset(root, stylesheet) {
  const formulas = root.querySelectorAll(".math:not([data-source]), .math-display:not([data-source])");
  if (!formulas.length) return;
  const { render } = await load(stylesheet);
  let began = performance.now();
  for (const element of formulas) {
    // A text of a thousand formulas must not hold up a key.
    if (performance.now() - began > SLICE_MS) {
      await new Promise((go) => setTimeout(go));
      began = performance.now();
    }
    if (element.dataset.source !== undefined) continue;
    const source = element.textContent;
    element.dataset.source = source;
    render(source, element, {
      displayMode: element.classList.contains("math-display"),
      throwOnError: false,
      strict: "ignore",
      trust: false,
      maxSize: 20,
      maxExpand: 300,
    });
  }
}
