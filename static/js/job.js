// The curves of a training job: asks for what was logged since last time until the job has ended.
import { Chart, formatValue } from "app/charts";
import { say } from "app/words";

const POLL_MS = 2000;
const ENDED = ["succeeded", "failed", "cancelled"];

const area = document.getElementById("charts");
const facts = JSON.parse(document.getElementById("chart-facts").textContent);
const spoken = { at: (step) => say("step", { step }), nothing: say("nothingLogged") };
const charts = specs(facts).map((spec) => new Chart({ ...spec, ...spoken }));
const rowsByStep = new Map();
let attempt = null;

function specs({ method, lossType, peopleAgree, agreementPairs, heldOutRows }) {
  const isLogistic = method === "reward" || (method === "dpo" && lossType === "sigmoid");
  const chosen = { label: say("chosen"), color: "accent" };
  const rejected = { label: say("rejected"), color: "warning" };
  const accuracyLines = [{ value: 0.5, text: say("guess") }];
  if (peopleAgree) accuracyLines.push({ value: peopleAgree, text: say("peopleAgree", { share: formatValue(peopleAgree) }) });
  const spread = (one, value) =>
    one.heldOut && heldOutRows ? ` ± ${formatValue(1.96 * Math.sqrt((value * (1 - value)) / heldOutRows))}` : "";
  return [
    {
      title: say("loss"),
      note: isLogistic ? say("lossLogisticNote") : say("lossNote"),
      series: [
        { key: "loss", label: say("train"), color: "accent" },
        { key: "eval_loss", label: say("heldOut"), color: "warning", heldOut: true },
      ],
      bands: isLogistic ? [{ from: 0.3, to: Math.LN2, text: say("band") }] : [],
    },
    {
      title: say("logps"),
      note: say("logpsNote"),
      series: [{ ...chosen, key: "logps/chosen" }, { ...rejected, key: "logps/rejected" }],
    },
    {
      title: say("accuracy"),
      note: agreementPairs
        ? say("accuracyPeopleNote")
        : say("accuracyNote"),
      series: [
        { key: "rewards/accuracies", label: say("train"), color: "soft", quiet: true },
        { key: "accuracy", label: say("train"), color: "soft", quiet: true },
        { key: "eval_rewards/accuracies", label: say("heldOut"), color: "accent", heldOut: true },
        { key: "eval_accuracy", label: say("heldOut"), color: "accent", heldOut: true },
      ],
      lines: accuracyLines,
      suffix: spread,
    },
    {
      title: say("rewards"),
      note: say("rewardsNote"),
      series: [{ ...chosen, key: "rewards/chosen" }, { ...rejected, key: "rewards/rejected" }],
      lines: [{ value: 0, text: "" }],
    },
    {
      title: say("reward"),
      note: say("rewardNote"),
      series: [
        { key: "max_reward", label: say("highest"), color: "soft" },
        { key: "mean_reward", label: say("mean"), color: "accent" },
        { key: "min_reward", label: say("lowest"), color: "soft" },
      ],
    },
    {
      title: say("margin"),
      note: say("marginNote"),
      series: [
        { key: "rewards/margins", label: say("train"), color: "accent" },
        { key: "margin", label: say("train"), color: "accent" },
        { key: "eval_rewards/margins", label: say("heldOut"), color: "warning", heldOut: true },
        { key: "eval_margin", label: say("heldOut"), color: "warning", heldOut: true },
      ],
      lines: [{ value: 0, text: "" }],
    },
    {
      title: say("tokenAccuracy"),
      note: say("tokenAccuracyNote"),
      series: [
        { key: "mean_token_accuracy", label: say("train"), color: "accent" },
        { key: "eval_mean_token_accuracy", label: say("heldOut"), color: "warning", heldOut: true },
      ],
    },
    {
      title: say("gradNorm"),
      note: say("gradNormNote"),
      series: [{ key: "grad_norm", label: say("train"), color: "accent" }],
    },
    {
      title: say("learningRate"),
      note: say("learningRateNote"),
      series: [{ key: "learning_rate", label: "", color: "soft", exact: true }],
    },
  ];
}

function show(totalSteps) {
  const rows = [...rowsByStep.values()].sort((one, other) => one.step - other.step);
  for (const chart of charts) {
    if (!chart.hasData(rows)) continue;
    if (!chart.element.isConnected) {
      // In the order of the list, whichever metric comes first.
      const next = charts.slice(charts.indexOf(chart) + 1).find((other) => other.element.isConnected);
      area.insertBefore(chart.element, next?.element ?? null);
    }
    chart.show(rows, totalSteps);
  }
  area.querySelector("[data-charts-empty]").hidden = rows.length > 0;
}

async function fetchNew() {
  // The last step is asked for again: a held-out measurement may have been added to it.
  const last = Math.max(-1, ...rowsByStep.keys());
  const reply = await fetch(`${area.dataset.metricsUrl}?after=${Math.max(-1, last - 1)}`, { headers: { Accept: "application/json" } });
  if (!reply.ok) throw new Error(`${reply.status}`);
  const news = await reply.json();
  if (attempt !== null && news.attempt !== attempt) {
    rowsByStep.clear(); // steps after the last checkpoint are done, and logged, anew
    attempt = news.attempt;
    return { ...news, more: true };
  }
  attempt = news.attempt;
  for (const row of news.rows) rowsByStep.set(row.step, row);
  return news;
}

async function poll() {
  let wait = POLL_MS;
  try {
    const news = await fetchNew();
    const hasEnded = ENDED.includes(news.status);
    show(hasEnded ? 0 : news.total_steps); // while it runs, the axis shows how far there is to go
    if (news.more) wait = 0;
    else if (hasEnded) return;
  } catch {
    wait = 3 * POLL_MS; // away for a moment: the curves stay as they are
  }
  if (document.hidden) {
    document.addEventListener("visibilitychange", poll, { once: true });
  } else {
    setTimeout(poll, wait);
  }
}

function repaint() {
  for (const chart of charts) chart.rebuild();
}

new MutationObserver(repaint).observe(document.documentElement, { attributeFilter: ["data-theme"] });
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", repaint);
poll();
