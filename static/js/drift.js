// The charts of one annotator's page: agreement and speed against the number of votes so far.

import { Chart } from "app/charts";

const holder = document.getElementById("drift");
const { rows, everybody } = JSON.parse(document.getElementById("drift-data").textContent);
const words = holder.dataset;
const at = (votes) => words.at.replace("{votes}", votes);

const charts = [
  new Chart({
    title: words.agreementTitle,
    note: words.agreementNote,
    at,
    series: [
      { key: "agreement", label: words.others, color: "accent", heldOut: true },
      { key: "gold", label: words.gold, color: "warning", heldOut: true },
    ],
    lines: everybody === null ? [] : [{ value: everybody, text: words.everybody }],
  }),
  new Chart({
    title: words.speedTitle,
    note: words.speedNote,
    at,
    series: [{ key: "seconds", label: words.seconds, color: "accent", heldOut: true }],
  }),
];

function draw() {
  for (const chart of charts) {
    if (!chart.hasData(rows)) continue;
    if (!chart.element.isConnected) holder.append(chart.element);
    chart.show(rows, rows.at(-1).step);
  }
}

draw();
// A canvas keeps the colours that it was drawn with.
new MutationObserver(() => charts.forEach((chart) => chart.rebuild())).observe(document.documentElement, {
  attributeFilter: ["data-theme"],
});
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => charts.forEach((chart) => chart.rebuild()));
