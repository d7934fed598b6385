// The curves of a training job: asks for what was logged since last time until the job has ended.
import { Chart, formatValue } from "app/charts";

const POLL_MS = 2000;
const ENDED = ["succeeded", "failed", "cancelled"];

const area = document.getElementById("charts");
const facts = JSON.parse(document.getElementById("chart-facts").textContent);
const charts = specs(facts).map((spec) => new Chart(spec));
const rowsByStep = new Map();
let attempt = null;

function specs({ method, lossType, peopleAgree, agreementPairs, heldOutRows }) {
  const isLogistic = method === "reward" || (method === "dpo" && lossType === "sigmoid");
  const chosen = { label: "chosen", color: "accent" };
  const rejected = { label: "rejected", color: "warning" };
  const accuracyLines = [{ value: 0.5, text: "a guess" }];
  if (peopleAgree) accuracyLines.push({ value: peopleAgree, text: `people agree ${formatValue(peopleAgree)}` });
  const spread = (one, value) =>
    one.heldOut && heldOutRows ? ` ± ${formatValue(1.96 * Math.sqrt((value * (1 - value)) / heldOutRows))}` : "";
  return [
    {
      title: "Loss",
      note: isLogistic ? "Starts at ln 2 = 0.69, where both sides look alike. Below 0.3 it often learns votes by heart." : "Faint: each step. Bold: the running mean.",
      series: [
        { key: "loss", label: "train", color: "accent" },
        { key: "eval_loss", label: "held-out", color: "warning", heldOut: true },
      ],
      bands: isLogistic ? [{ from: 0.3, to: Math.LN2, text: "healthy band" }] : [],
    },
    {
      title: "Log-probability: chosen, rejected",
      note: "Both may fall. What counts is the gap; a chosen side that collapses is a warning.",
      series: [{ ...chosen, key: "logps/chosen" }, { ...rejected, key: "logps/rejected" }],
    },
    {
      title: "Accuracy: chosen above rejected",
      note: agreementPairs
        ? "Held-out prompts are never trained on. People agreeing with each other is about as far as a model can get."
        : "Held-out prompts are never trained on.",
      series: [
        { key: "rewards/accuracies", label: "train", color: "soft", quiet: true },
        { key: "accuracy", label: "train", color: "soft", quiet: true },
        { key: "eval_rewards/accuracies", label: "held-out", color: "accent", heldOut: true },
        { key: "eval_accuracy", label: "held-out", color: "accent", heldOut: true },
      ],
      lines: accuracyLines,
      suffix: spread,
    },
    {
      title: "Reward: chosen, rejected",
      note: "Beside the base model: above 0 means that a response became likelier than it was.",
      series: [{ ...chosen, key: "rewards/chosen" }, { ...rejected, key: "rewards/rejected" }],
      lines: [{ value: 0, text: "" }],
    },
    {
      title: "Reward",
      note: "Over chosen and rejected responses together. Only differences between rewards mean something.",
      series: [
        { key: "max_reward", label: "highest", color: "soft" },
        { key: "mean_reward", label: "mean", color: "accent" },
        { key: "min_reward", label: "lowest", color: "soft" },
      ],
    },
    {
      title: "Margin between chosen and rejected",
      note: "Should rise from 0 and level off.",
      series: [
        { key: "rewards/margins", label: "train", color: "accent" },
        { key: "margin", label: "train", color: "accent" },
        { key: "eval_rewards/margins", label: "held-out", color: "warning", heldOut: true },
        { key: "eval_margin", label: "held-out", color: "warning", heldOut: true },
      ],
      lines: [{ value: 0, text: "" }],
    },
    {
      title: "Token accuracy",
      note: "How often the next token of a preferred response is the model's first choice.",
      series: [
        { key: "mean_token_accuracy", label: "train", color: "accent" },
        { key: "eval_mean_token_accuracy", label: "held-out", color: "warning", heldOut: true },
      ],
    },
    {
      title: "Gradient norm",
      note: "Steady is good. Sudden peaks, or values above 100, mean that training is coming apart.",
      series: [{ key: "grad_norm", label: "train", color: "accent" }],
    },
    {
      title: "Learning rate",
      note: "As scheduled: a warm-up, then down.",
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
