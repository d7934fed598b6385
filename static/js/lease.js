// Renews the leases of a page that is being used, and says in time when they run out.

import { say } from "app/words";

const WARN_SECONDS = 120;

/**
 * Keep the leases of the page while it is visible and somebody does something.
 * `show` gets a sentence, or the empty string when all is well; `body` gives what the server is told with it.
 */
export function keepLease({ url, seconds, headers, body = () => undefined, show }) {
  let endsAt = performance.now() + seconds * 1000;
  let lastActive = performance.now();
  let renewing = false;
  let lastTry = 0;

  async function renew() {
    if (renewing) return;
    renewing = true;
    lastTry = performance.now();
    try {
      const response = await fetch(url, { method: "POST", headers: headers(), body: body() });
      if (response.ok) endsAt = performance.now() + (await response.json()).seconds * 1000;
    } catch {
      // The next tick tries again, and the remaining time stays in view.
    } finally {
      renewing = false;
      tick();
    }
  }

  function tick() {
    const left = Math.round((endsAt - performance.now()) / 1000);
    if (left <= 0) show(say("leaseOver"));
    else if (left <= WARN_SECONDS) show(say("leaseLeft", { time: `${Math.floor(left / 60)}:${String(left % 60).padStart(2, "0")}` }));
    else show("");
  }

  const period = Math.min(60, seconds / 4) * 1000;
  setInterval(() => {
    const isActive = performance.now() - lastActive < (seconds * 1000) / 2;
    if (document.visibilityState === "visible" && isActive) renew();
  }, period);
  setInterval(tick, 1000);
  document.addEventListener("visibilitychange", () => {
    if (document.visibilityState === "visible") renew();
  });
  for (const event of ["keydown", "pointermove", "wheel", "touchstart"]) {
    document.addEventListener(
      event,
      () => {
        lastActive = performance.now();
        const isShort = endsAt - lastActive < WARN_SECONDS * 1000;
        if (isShort && lastActive - lastTry > 1000) renew();
      },
      { passive: true },
    );
  }
  return {
    /** The server has just renewed them with an answer. */
    renewed() {
      endsAt = performance.now() + seconds * 1000;
      tick();
    },
  };
}
