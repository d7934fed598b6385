// The two charts of the Progress page: judgments an hour and a day.

import { Chart } from "app/charts";

const holder = document.getElementById("pace-charts");
const data = JSON.parse(document.getElementById("pace").textContent);

for (const name of ["days", "hours"]) {
  const rows = data[name].map(([when, count], step) => ({ step, when, count }));
  if (!rows.some(({ count }) => count)) continue;
  const chart = new Chart({
    title: holder.dataset[`${name}Title`],
    note: holder.dataset[`${name}Note`],
    series: [{ key: "count", label: "", color: "accent", bars: true }],
    when: (step) => rows[step]?.when ?? "",
  });
  holder.append(chart.element);
  chart.show(rows, rows.length - 1);
}
