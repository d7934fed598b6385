// The guidelines one key away. An answer carries the version that its writer could read; when the server tells of a
// newer one, the page says so and fetches it.

import { typeset } from "app/math";
import { fetchHeaders } from "app/outbox";
import { toast } from "app/toast";
import { page, say } from "app/words";

export class Guidelines {
  #sheet = document.getElementById("guidelines");
  #url;
  #stylesheet;
  version = page.guidelineVersion;

  constructor(url, stylesheet) {
    this.#url = url;
    this.#stylesheet = stylesheet;
    typeset(this.#sheet, stylesheet);
  }

  isStale(headers) {
    return Number(headers.get("X-Guideline-Version") ?? this.version) > this.version;
  }

  /** Fetch and show the wording in force; gives whether that worked. */
  async refresh() {
    try {
      const response = await fetch(this.#url, { headers: fetchHeaders() });
      if (!response.ok) throw new Error(String(response.status));
      this.#sheet.querySelector("[data-guidelines]").innerHTML = await response.text();
      this.version = Number(response.headers.get("X-Guideline-Version"));
    } catch {
      toast(say("textFailed"));
      return false;
    }
    for (const button of document.querySelectorAll("[popovertarget=guidelines]")) button.hidden = false;
    typeset(this.#sheet, this.#stylesheet);
    this.#sheet.showPopover();
    return true;
  }
}
