// What the server tells the scripts of a page: settings, and every sentence that they say, in the person's language.

const element = document.getElementById("page-data");
export const page = element ? JSON.parse(element.textContent) : { words: {} };

/** A sentence by its name, with {placeholders} filled in. */
export function say(name, values = {}) {
  const sentence = page.words[name];
  if (sentence === undefined) throw new Error(`no words for ${name}`);
  return sentence.replace(/\{(\w+)\}/g, (whole, key) => values[key] ?? whole);
}
