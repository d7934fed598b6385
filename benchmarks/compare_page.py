"""How fast the compare page is for the person before it, in headless Chromium against gunicorn as in production.

    python -m benchmarks.compare_page [--votes 120] [--loads 5] [--label-studio-folder FOLDER]

- key to paint: from the time stamp of the key press that votes to the frame that shows the next comparison, for a
  person who presses a key every half second or so;
- bytes on the wire: all that a first load of the page transfers, headers included, texts without LaTeX, cache empty;
- time to interactive: from the start of navigation to the first key press that the page answers.

Where the folder holds an installation of Label Studio (see benchmarks/label_studio.py), its labelling page is measured
in the same run with the same texts: its key is Ctrl+Enter, which submits.
"""

from __future__ import annotations

import argparse
import contextlib
import random
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

from benchmarks.label_studio_server import (
    VERSION,
    LabelStudioAnnotator,
    debian_postgres,
    default_folder,
    install,
    label_studio,
)
from benchmarks.measure import add_json_option, machine, median, p95, print_table, write_json
from benchmarks.people import PROJECT, Client, TouchstoneAnnotator, fill, make_items
from benchmarks.servers import prepared_django, touchstone

PATIENCE_SECONDS = 60
LABEL_STUDIO_TEXT = ".lsf-richtext__line"
LABEL_STUDIO_VOTES = 20
KEY_EVERY_MS = 25  # while a page loads: the resolution of its time to interactive
# Notes the time of each vote's key press, and the time when the frame with the next comparison has been drawn: a
# message posted from an animation frame is handled right after that frame.
WATCH_VOTES = """
window.paints = [];
let pressedAt = 0;
addEventListener("keydown", (event) => { pressedAt = event.timeStamp; }, { capture: true });
addEventListener("DOMContentLoaded", () => {
  const drawn = new MessageChannel();
  let began = 0;
  drawn.port1.onmessage = () => window.paints.push(performance.now() - began);
  new MutationObserver((changes) => {
    if (!changes.some((change) => change.addedNodes.length)) return;
    began = pressedAt;
    requestAnimationFrame(() => drawn.port2.postMessage(0));
  }).observe(document.getElementById("stage"), { childList: true });
});
"""
# The page answers "?" by opening the dialog of keys.
WATCH_DIALOG = """
addEventListener("DOMContentLoaded", () => {
  new MutationObserver(() => { window.answeredAt ??= performance.now(); })
    .observe(document.getElementById("keys"), { attributeFilter: ["open"] });
});
"""
# Label Studio answers Ctrl+Enter by sending the annotation; the next task is there when its number has changed.
WATCH_ANNOTATION = """
window.paints = [];
let pressedAt = 0;
let shown = "";
const drawn = new MessageChannel();
drawn.port1.onmessage = () => window.paints.push(performance.now() - pressedAt);
addEventListener("keydown", (event) => { if (event.key === "Enter") pressedAt = event.timeStamp; }, { capture: true });
function look() {
  const task = document.querySelector(".lsf-current-task__task-id")?.textContent ?? "";
  if (task && shown && task !== shown) drawn.port2.postMessage(0);
  shown = task || shown;
  requestAnimationFrame(look);
}
requestAnimationFrame(look);
const send = window.fetch;
window.fetch = function (resource, options) {
  if (/\\/annotations/.test(String(resource?.url ?? resource)) && options?.method === "POST") {
    window.answeredAt ??= performance.now();
  }
  return send.apply(this, arguments);
};
"""


@contextlib.contextmanager
def chromium() -> Iterator[Browser]:
    executable = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if not executable:
        raise SystemExit("no Chromium found (Debian: apt-get install chromium)")
    with sync_playwright() as playwright:
        # Chromium refuses to run as root with its sandbox on. Nothing but this machine is looked up.
        flags = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-background-networking"]
        flags.append("--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1")
        browser = playwright.chromium.launch(executable_path=executable, args=flags)
        yield browser
        browser.close()


@contextlib.contextmanager
def visitor(browser: Browser, url: str, client: Client, script: str = "") -> Iterator[BrowserContext]:
    """A fresh profile with an empty cache that has the session of the client."""
    context = browser.new_context(viewport={"width": 1440, "height": 900})
    context.set_default_timeout(PATIENCE_SECONDS * 1000)
    context.add_cookies([{"name": name, "value": value, "url": url} for name, value in client.cookies.items()])
    if script:
        context.add_init_script(script)
    try:
        yield context
    finally:
        context.close()


def bytes_of_load(context: BrowserContext, address: str, ready: str) -> dict[str, Any]:
    """What a load transfers until the network rests, by kind of resource."""
    page = context.new_page()
    session = context.new_cdp_session(page)
    kinds: dict[str, str] = {}
    sizes: dict[str, int] = {}
    session.on("Network.responseReceived", lambda event: kinds.update({event["requestId"]: event["type"]}))
    session.on(
        "Network.loadingFinished", lambda event: sizes.update({event["requestId"]: int(event["encodedDataLength"])})
    )
    session.send("Network.enable")
    session.send("Network.setCacheDisabled", {"cacheDisabled": True})
    page.goto(address)
    page.wait_for_selector(ready)
    page.wait_for_load_state("networkidle")
    by_kind: dict[str, int] = {}
    for request, size in sizes.items():
        kind = kinds.get(request, "Other")
        by_kind[kind] = by_kind.get(kind, 0) + size
    page.close()
    return {"bytes": sum(sizes.values()), "requests": len(sizes), "by kind": by_kind}


def load_times(context: BrowserContext, address: str, key: str) -> dict[str, float]:
    """Seconds from the start of a navigation: to the answer's first byte, to the parsed page whose scripts have run,
    and to the first key press that the page answers; the key is pressed again and again until it does."""
    page = context.new_page()
    page.goto(address, wait_until="commit")
    give_up = time.monotonic() + PATIENCE_SECONDS
    while not (answered := page.evaluate("window.answeredAt ?? 0")):
        if time.monotonic() > give_up:
            raise SystemExit(f"{address} answered no {key} in {PATIENCE_SECONDS} s")
        page.keyboard.press(key)
        page.wait_for_timeout(KEY_EVERY_MS)
    timing = page.evaluate("performance.getEntriesByType('navigation')[0].toJSON()")
    page.close()
    return {
        "first byte s": timing["responseStart"] / 1000,
        "scripts run s": timing["domContentLoadedEventEnd"] / 1000,
        "interactive s": answered / 1000,
    }


def vote(page: Page, key: str, votes: int) -> list[float]:
    """Milliseconds from key to paint of each vote. The next comparison has always arrived before a key is pressed."""
    rng = random.Random(0)
    for number in range(votes):
        with page.expect_response(lambda response: response.request.method == "POST"):
            page.keyboard.press(key)
        give_up = time.monotonic() + PATIENCE_SECONDS
        while page.evaluate("window.paints.length") <= number:
            if time.monotonic() > give_up:
                raise SystemExit(f"vote {number + 1} brought nothing new to the screen in {PATIENCE_SECONDS} s")
            page.wait_for_timeout(20)
        page.wait_for_timeout(rng.uniform(200, 500))
    return [float(value) for value in page.evaluate("window.paints")]


def measure_ours(browser: Browser, options: argparse.Namespace) -> dict[str, Any]:
    # Playwright runs an event loop in this thread, which Django takes for asynchronous code.
    with prepared_django(environment={"DJANGO_ALLOW_ASYNC_UNSAFE": "1"}) as database_pid:
        assert database_pid is not None
        # Guidelines of an ordinary length, since they come with the page.
        fill(
            make_items(options.votes + 20, latex=False),
            1,
            guidelines="# What to look for\n\n" + make_items(1, latex=False)[0].a,
        )
        with touchstone(database_pid) as site:
            client = TouchstoneAnnotator(site.port, "annotator0").client
            address = f"{site.url}/projects/{PROJECT}/compare/"
            with visitor(browser, site.url, client) as context:
                weight = bytes_of_load(context, address, ".comparison")
            loads = []
            for _ in range(options.loads):
                with visitor(browser, site.url, client, WATCH_DIALOG) as context:
                    loads.append(load_times(context, address, "?"))
            with visitor(browser, site.url, client, WATCH_VOTES) as context:
                page = context.new_page()
                page.goto(address, wait_until="networkidle")
                page.evaluate("window.paints.length = 0")
                paints = vote(page, "2", options.votes)
    return {
        "page": "ours",
        "key to paint p50 ms": median(paints),
        "key to paint p95 ms": p95(paints),
        "kB on the wire": weight["bytes"] / 1000,
        "requests": weight["requests"],
        **{name: median([load[name] for load in loads]) for name in loads[0]},
        "kB by kind": {kind: round(size / 1000, 1) for kind, size in weight["by kind"].items()},
    }


def measure_label_studio(browser: Browser, options: argparse.Namespace) -> dict[str, Any]:
    python = install(options.label_studio_folder)
    with (
        tempfile.TemporaryDirectory(prefix="label-studio-") as name,
        debian_postgres(Path(name)) as postgres,
        label_studio(python, Path(name), postgres=postgres, items=make_items(60, latex=False), people=1) as site,
    ):
        client = LabelStudioAnnotator(site.port, "annotator0", site.project_id).client
        address = f"{site.url}/projects/{site.project_id}/data?labeling=1"
        with visitor(browser, site.url, client) as context:
            weight = bytes_of_load(context, address, LABEL_STUDIO_TEXT)
        loads = []
        for _ in range(options.loads):
            with visitor(browser, site.url, client, WATCH_ANNOTATION) as context:
                loads.append(load_times(context, address, "Control+Enter"))
        with visitor(browser, site.url, client, WATCH_ANNOTATION) as context:
            page = context.new_page()
            page.goto(address)
            page.wait_for_selector(LABEL_STUDIO_TEXT)
            page.wait_for_timeout(2000)
            page.evaluate("window.paints.length = 0")
            paints = vote(page, "Control+Enter", LABEL_STUDIO_VOTES)
    return {
        "page": f"Label Studio {VERSION}",
        "key to paint p50 ms": median(paints),
        "key to paint p95 ms": p95(paints),
        "kB on the wire": weight["bytes"] / 1000,
        "requests": weight["requests"],
        **{name: median([load[name] for load in loads]) for name in loads[0]},
        "kB by kind": {kind: round(size / 1000, 1) for kind, size in weight["by kind"].items()},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--votes", type=int, default=120)
    parser.add_argument("--loads", type=int, default=5, help="loads whose time to interactive is taken")
    parser.add_argument("--label-studio-folder", type=Path, default=default_folder())
    add_json_option(parser)
    options = parser.parse_args()
    with chromium() as browser:
        rows = [measure_ours(browser, options)]
        if (options.label_studio_folder / "installed").exists():
            rows.append(measure_label_studio(browser, options))
    state = machine()
    print_table([{name: value for name, value in row.items() if name != "kB by kind"} for row in rows])
    for row in rows:
        print(f"{row['page']}, kB by kind: {row['kB by kind']}")
    print(f"load average at the end: {state['load_average']}, {state['cores']} cores")
    write_json(options.json, {"rows": rows, "machine": state})


if __name__ == "__main__":
    main()
