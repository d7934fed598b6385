// Reads the values of a figure where the pointer is, or by arrow keys; the page draws the figures itself.
// What is read stays when the figures are drawn anew.
const reading = { plot: null, place: 0 };

function readingsOf(plot) {
  plot.readings ??= JSON.parse(plot.dataset.readings);
  return plot.readings;
}

function nearest(readings, place) {
  let best = 0;
  for (let index = 1; index < readings.length; index += 1) {
    if (Math.abs(readings[index][0] - place) < Math.abs(readings[best][0] - place)) best = index;
  }
  return best;
}

function tell(plot, index, aloud) {
  const readings = readingsOf(plot);
  if (!readings.length) return;
  const [place, text] = readings[Math.max(0, Math.min(readings.length - 1, index))];
  Object.assign(reading, { plot: plot.id, place });
  const rule = plot.querySelector(".plot-rule");
  rule.style.setProperty("--left", `${place / 10}%`);
  rule.hidden = false;
  const card = plot.closest("[data-chart]");
  const line = card.querySelector("[data-reading]");
  line.setAttribute("aria-live", aloud ? "polite" : "off");
  line.textContent = text;
  line.hidden = false;
  card.querySelector("[data-note]").hidden = true;
}

function leave(plot) {
  if (reading.plot !== plot.id) return;
  reading.plot = null;
  plot.querySelector(".plot-rule").hidden = true;
  const card = plot.closest("[data-chart]");
  card.querySelector("[data-reading]").hidden = true;
  card.querySelector("[data-note]").hidden = false;
}

const plotAt = (target) => (target instanceof Element ? target.closest(".plot") : null);

document.addEventListener("pointermove", ({ target, clientX }) => {
  const plot = plotAt(target);
  if (reading.plot && plot?.id !== reading.plot) {
    const before = document.getElementById(reading.plot);
    if (before && before !== document.activeElement) leave(before);
  }
  if (!plot) return;
  const { left, width } = plot.querySelector("svg").getBoundingClientRect();
  tell(plot, nearest(readingsOf(plot), (1000 * (clientX - left)) / width), false);
});

document.addEventListener("keydown", (event) => {
  const plot = plotAt(event.target);
  if (!plot || event.target !== plot || event.altKey || event.ctrlKey || event.metaKey) return;
  const readings = readingsOf(plot);
  const now = reading.plot === plot.id ? nearest(readings, reading.place) : readings.length;
  const stride = event.shiftKey ? 10 : 1;
  const next = { ArrowLeft: now - stride, ArrowRight: now + stride, Home: 0, End: readings.length - 1 }[event.key];
  if (next === undefined) {
    if (event.key === "Escape") leave(plot);
    return;
  }
  event.preventDefault();
  tell(plot, next, true);
});

document.addEventListener("focusout", ({ target }) => {
  if (!target.matches?.(".plot")) return;
  // A figure that is drawn anew loses the focus and has it back in the same frame.
  requestAnimationFrame(() => {
    if (target.isConnected && document.activeElement?.id !== target.id) leave(target);
  });
});

document.addEventListener("htmx:afterSwap", () => {
  const plot = reading.plot && document.getElementById(reading.plot);
  if (plot) tell(plot, nearest(readingsOf(plot), reading.place), false);
});
