// The text of a response as it stands on the screen, with the way from its characters to the nodes that hold them and
// back. A typeset formula counts as its source: that is what the server sees in the same place.

export class ShownText {
  #parts = [];

  constructor(element) {
    let text = "";
    const walk = (node) => {
      for (const child of node.childNodes) {
        const isText = child.nodeType === Node.TEXT_NODE;
        if (!isText && child.dataset?.source === undefined) {
          walk(child);
          continue;
        }
        const content = isText ? child.data : child.dataset.source;
        this.#parts.push({ node: child, start: text.length, end: text.length + content.length, isWhole: !isText });
        text += content;
      }
    };
    walk(element);
    this.element = element;
    this.text = text;
  }

  /** The offset of a range's end or start; a place inside a formula counts as its edge. */
  offsetOf(container, offset, isEnd) {
    const probe = document.createRange();
    probe.setStart(container, offset);
    for (const part of this.#parts) {
      if (part.node === container && !part.isWhole) return part.start + offset;
      if (part.isWhole && part.node.contains(container)) return isEnd ? part.end : part.start;
      const before = document.createRange();
      before.selectNode(part.node);
      if (probe.compareBoundaryPoints(Range.START_TO_START, before) <= 0) return part.start;
    }
    return this.text.length;
  }

  #partAt(offset) {
    let [low, high] = [0, this.#parts.length];
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.#parts[middle].end <= offset) low = middle + 1;
      else high = middle;
    }
    return this.#parts[low];
  }

  /** A live range over [start, end). */
  range(start, end) {
    const range = document.createRange();
    const first = this.#partAt(start);
    const last = this.#partAt(end - 1);
    if (!first || !last) return null;
    if (first.isWhole) range.setStartBefore(first.node);
    else range.setStart(first.node, start - first.start);
    if (last.isWhole) range.setEndAfter(last.node);
    else range.setEnd(last.node, end - last.start);
    return range;
  }
}

/** Characters as the server counts them: code points, not UTF-16 units. */
export const toCodePoints = (text, offset) => [...text.slice(0, offset)].length;
export const fromCodePoints = (text, offset) => [...text].slice(0, offset).join("").length;

/** Draw ranges over the text without touching the page's elements. */
export function highlight(name, ranges) {
  if (!globalThis.CSS?.highlights) return;
  if (ranges.length) CSS.highlights.set(name, new Highlight(...ranges));
  else CSS.highlights.delete(name);
}
