// Which words differ between two texts: the longest common subsequence of their words, by Myers' greedy algorithm
// (1986). Where that needs more than MOST_EDITS changes, the best path so far is kept and the search begins anew at its
// end, so that the time grows with the length of the texts and not with its square.

const WORD = /[\p{L}\p{M}\p{N}_]+|[^\s]/gu;
// Scripts that are written without spaces are compared by characters.
const UNSPACED = /[\p{Script=Han}\p{Script=Hiragana}\p{Script=Katakana}\p{Script=Thai}\p{Script=Lao}\p{Script=Khmer}]/u;
const MOST_EDITS = 300;

/** The words of a text: {text, start, end}, with the offsets in UTF-16 units. */
export function splitWords(text) {
  const words = [];
  for (const match of text.matchAll(WORD)) {
    if (!UNSPACED.test(match[0])) {
      words.push({ text: match[0], start: match.index, end: match.index + match[0].length });
      continue;
    }
    let start = match.index;
    for (const character of match[0]) {
      words.push({ text: character, start, end: start + character.length });
      start += character.length;
    }
  }
  return words;
}

/**
 * The runs in which two lists of strings differ: [{a: [from, to], b: [from, to]}], half-open, in order; what lies
 * between them is equal.
 */
export function diff(a, b) {
  const runs = [];
  let [i, j] = [0, 0];
  for (const [x, y, length] of equalRuns(a, b)) {
    if (x > i || y > j) runs.push({ a: [i, x], b: [j, y] });
    i = x + length;
    j = y + length;
  }
  return runs;
}

/** [start in a, start in b, length], in order; the last one is empty and stands at both ends. */
function* equalRuns(a, b) {
  let [i, j] = [0, 0];
  while (i < a.length || j < b.length) {
    const path = search(a, i, b, j);
    for (const [x, y, length] of path.runs) yield [i + x, j + y, length];
    i += path.x;
    j += path.y;
  }
  yield [a.length, b.length, 0];
}

/** The path of fewest changes from (aFrom, bFrom) to both ends, or as far as MOST_EDITS changes lead. */
function search(a, aFrom, b, bFrom) {
  const n = a.length - aFrom;
  const m = b.length - bFrom;
  const most = Math.min(n + m, MOST_EDITS);
  const furthest = new Int32Array(2 * most + 3);
  const middle = most + 1;
  const trace = [];
  for (let d = 0; d <= most; d += 1) {
    let best = { x: 0, y: 0 };
    for (let k = -d; k <= d; k += 2) {
      const down = k === -d || (k !== d && furthest[middle + k - 1] < furthest[middle + k + 1]);
      let x = down ? furthest[middle + k + 1] : furthest[middle + k - 1] + 1;
      while (x < n && x - k < m && a[aFrom + x] === b[bFrom + x - k]) x += 1;
      furthest[middle + k] = x;
      const y = x - k;
      if (x <= n && y <= m && x + y > best.x + best.y) best = { x, y };
      if (x >= n && y >= m) return { x: n, y: m, runs: walkBack(trace, n, m, d) };
    }
    if (d === most) return { ...best, runs: walkBack(trace, best.x, best.y, d) };
    trace.push(furthest.slice(middle - d - 1, middle + d + 2));
  }
  return { x: n, y: m, runs: [] };
}

function walkBack(trace, x, y, d) {
  const runs = [];
  for (let step = d; step > 0; step -= 1) {
    const before = trace[step - 1];
    const at = (k) => before[k + step] ?? -1;
    const k = x - y;
    const down = k === -step || (k !== step && at(k - 1) < at(k + 1));
    const from = down ? k + 1 : k - 1;
    const startX = down ? at(from) : at(from) + 1;
    if (x > startX) runs.push([startX, startX - k, x - startX]);
    x = at(from);
    y = x - from;
  }
  if (x > 0) runs.push([0, 0, x]);
  return runs.reverse();
}
