// Comfort while reading: texts that scroll together, words that differ, copying, tabs on a narrow screen.

import { diff, splitWords } from "app/diff";
import { labelKeys, setting } from "app/hotkeys";
import { fetchHeaders } from "app/outbox";
import { highlight, ShownText } from "app/shown-text";
import { toast } from "app/toast";
import { say } from "app/words";

const SIMILAR = 0.75; // share of common words from which differences are marked without being asked for
const UNLIKE = 0.1; // below this nearly every word would be marked, which tells nothing
const MOST_COMPARED = 20_000; // words; longer texts are compared only on request
const COLLAPSE_AFTER = 48; // pixels
const isNarrow = matchMedia("(max-width: 56rem)");

/** A response's text as it was written, from the server: what the page holds is rendered. */
export async function writtenText(item, position) {
  item.texts ??= [];
  item.texts[position] ??= fetch(`/assignments/${item.id}/text/${position}`, { headers: fetchHeaders() }).then((response) => {
    if (!response.ok) throw new Error(String(response.status));
    return response.text();
  });
  try {
    return await item.texts[position];
  } catch (problem) {
    item.texts[position] = undefined;
    throw problem;
  }
}

// ── Tools that scripts add to a comparison ───────────────────────────────────────────────────────────────────────

function button(label, text, data) {
  const element = Object.assign(document.createElement("button"), { type: "button", className: "tool" });
  element.setAttribute("aria-label", label);
  element.append(text);
  Object.assign(element.dataset, data);
  return element;
}

export function addTools(item) {
  const panels = [...item.node.querySelectorAll(".panel")];
  const tabs = document.createElement("nav");
  tabs.className = "side-tabs";
  panels.forEach((panel, position) => {
    const { name } = panel.dataset;
    const tools = document.createElement("span");
    tools.className = "panel-tools";
    tools.append(button(say("copyLabel", { name }), say("copy"), { copy: position }));
    if (panels.length === 2) {
      const toggle = button(say("diffLabel"), `${say("diff")} `, { diff: "" });
      toggle.setAttribute("aria-pressed", "false");
      toggle.append(Object.assign(document.createElement("kbd"), { textContent: "D", ariaHidden: "true" }));
      toggle.dataset.hotkey = "d";
      toggle.dataset.hotkeyLabel = say("diffLabel");
      tools.append(toggle);
    }
    panel.querySelector(".panel-head").append(tools);
    const tab = button(say("responseTab", { name }), name, { sideTab: position });
    tab.className = "";
    if (!position) tab.setAttribute("aria-current", "true");
    tabs.append(tab);
  });
  item.node.querySelector(".panels").before(tabs);
  labelKeys(item.node);
}

// ── Differences ──────────────────────────────────────────────────────────────────────────────────────────────────

function compareSides(item) {
  if (item.differences) return item.differences;
  const sides = [...item.node.querySelectorAll("[data-response]")].map((element) => new ShownText(element));
  const words = sides.map((side) => splitWords(side.text));
  const runs = diff(...words.map((list) => list.map((word) => word.text)));
  const places = runs.flatMap((run) =>
    [run.a, run.b].flatMap(([from, to], side) =>
      from < to ? [[sides[side], words[side][from].start, words[side][to - 1].end]] : [],
    ),
  );
  const changed = runs.reduce((sum, run) => sum + run.a[1] - run.a[0] + run.b[1] - run.b[0], 0);
  const count = words[0].length + words[1].length;
  item.differences = { places, similarity: count ? 1 - changed / count : 1 };
  return item.differences;
}

/** Ahead of time: whether the two are so alike that their differences should be marked at once. */
export function noticeSimilarity(item) {
  if (item.count !== 2 || item.showsDiff !== undefined) return;
  const lengths = [...item.node.querySelectorAll("[data-response]")].map((element) => element.textContent.length);
  if (Math.max(...lengths) > MOST_COMPARED * 5 || Math.min(...lengths) < 0.6 * Math.max(...lengths)) return;
  const { similarity, places } = compareSides(item);
  item.showsDiff = similarity >= SIMILAR && places.length > 0;
}

function drawDifferences(item) {
  const isOn = Boolean(item?.showsDiff);
  // Ranges are made anew each time: taking a comparison off the screen empties those inside it.
  const places = isOn ? compareSides(item).places : [];
  highlight("difference", places.map(([side, start, end]) => side.range(start, end)));
  for (const toggle of item?.node.querySelectorAll("[data-diff]") ?? []) toggle.setAttribute("aria-pressed", String(isOn));
}

// ── The page's listeners ─────────────────────────────────────────────────────────────────────────────────────────

export class Reading {
  #item = null;
  #stage;
  #follows = new WeakSet();

  constructor(stage) {
    this.#stage = stage;
    stage.addEventListener("scroll", (event) => this.#scrolled(event.target), { capture: true, passive: true });
    document.addEventListener("click", (event) => this.#clicked(event));
  }

  open(item) {
    this.#item = item;
    if (!item) return highlight("difference", []);
    for (const box of item.node.querySelectorAll(".prompt, .panels, .panel-text")) box.scrollTo(0, 0);
    item.node.toggleAttribute("data-scrolled", false);
    this.#markTab(0);
    drawDifferences(item);
  }

  /** What prefetching found out about the item that is on the screen by now. */
  refresh(item) {
    if (item === this.#item) drawDifferences(item);
  }

  #panels = () => [...this.#stage.querySelectorAll(".panel-text")];

  #clicked(event) {
    const find = (selector) => event.target.closest(selector);
    if (!this.#item) return;
    if (find("[data-diff]")) this.#toggleDiff();
    else if (find("[data-copy]")) this.#copy(Number(find("[data-copy]").dataset.copy));
    else if (find("[data-side-tab]")) this.#showSide(Number(find("[data-side-tab]").dataset.sideTab));
    else if (find("[data-scroll]")) this.#scrollAll(Number(find("[data-scroll]").dataset.scroll));
    else if (find("[data-link-scroll]")) {
      setting("unlinked", !setting("unlinked"));
      toast(say(setting("unlinked") ? "linkOff" : "linkOn"));
    }
  }

  #toggleDiff() {
    const item = this.#item;
    const { places, similarity } = compareSides(item);
    const isUnlike = similarity < UNLIKE;
    item.showsDiff = !item.showsDiff && !isUnlike;
    drawDifferences(item);
    if (isUnlike) toast(say("diffUnlike"));
    else toast(say(item.showsDiff ? (places.length ? "diffOn" : "diffNone") : "diffOff"));
  }

  async #copy(position) {
    const name = this.#stage.querySelectorAll(".panel")[position].dataset.name;
    let text;
    try {
      text = await writtenText(this.#item, position);
    } catch {
      return toast(say("textFailed"));
    }
    toast(say((await putOnClipboard(text)) ? "copied" : "copyFailed", { name }));
  }

  #scrollAll(direction) {
    const panels = this.#panels();
    const longest = panels.reduce((one, other) => (other.scrollHeight > one.scrollHeight ? other : one));
    for (const panel of setting("unlinked") ? panels : [longest]) {
      panel.scrollBy({ top: direction * panel.clientHeight * 0.6 });
    }
  }

  #scrolled(target) {
    if (!this.#item) return;
    if (target.matches(".panels")) {
      if (!isNarrow.matches) return;
      const step = target.scrollWidth / target.children.length;
      this.#markTab(Math.round(Math.abs(target.scrollLeft) / step));
    }
    if (!target.matches(".panel-text")) return;
    this.#collapsePrompt(target);
    if (this.#follows.delete(target) || setting("unlinked") || isNarrow.matches) return;
    const way = target.scrollHeight - target.clientHeight;
    if (way <= 0) return;
    for (const panel of this.#panels()) {
      const top = (target.scrollTop / way) * (panel.scrollHeight - panel.clientHeight);
      if (panel === target || Math.abs(panel.scrollTop - top) < 1) continue;
      this.#follows.add(panel); // its own scroll event must not come back to this one
      panel.scrollTop = top;
    }
  }

  /** A long prompt makes room while the responses are read; what is under the eye stays where it is. */
  #collapsePrompt(panel) {
    const { node } = this.#item;
    const isScrolled = node.hasAttribute("data-scrolled");
    const prompt = node.querySelector(".prompt");
    const before = prompt.offsetHeight;
    if (!isScrolled && panel.scrollTop > before + COLLAPSE_AFTER) {
      node.toggleAttribute("data-scrolled", true);
      const gained = before - prompt.offsetHeight;
      if (gained > 0) for (const box of this.#panels()) box.scrollTop -= gained;
    } else if (isScrolled && this.#panels().every((box) => box.scrollTop < 4)) {
      node.toggleAttribute("data-scrolled", false);
    }
  }

  #markTab(index) {
    this.#stage.querySelectorAll("[data-side-tab]").forEach((tab, position) => {
      if (position === index) tab.setAttribute("aria-current", "true");
      else tab.removeAttribute("aria-current");
    });
  }

  #showSide(position) {
    const panels = this.#stage.querySelector(".panels");
    const isCalm = matchMedia("(prefers-reduced-motion: reduce)").matches;
    panels.scrollTo({
      left: panels.children[position].offsetLeft - panels.children[0].offsetLeft,
      behavior: isCalm ? "instant" : "smooth",
    });
  }
}

async function putOnClipboard(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    // Plain http has no clipboard API.
    const field = Object.assign(document.createElement("textarea"), { value: text, className: "visually-hidden" });
    document.body.append(field);
    field.select();
    const done = document.execCommand("copy");
    field.remove();
    return done;
  }
}
