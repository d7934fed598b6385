"""From two files of responses to a file that TRL trains on, with people in between.

    python docs/examples/collect_preferences.py http://localhost:8000 my-project old.jsonl new.jsonl --out pairs.jsonl

Each line of the two files is {"prompt": "…", "response": "…"}; a prompt that both files answer becomes a comparison.
The script uploads, tells where to judge, waits until every comparison has a verdict and writes the pairs. Run it again
at any time: what is there already is left alone. The token is read from TOUCHSTONE_TOKEN; make one on your own page.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path

from annotation.client import Touchstone


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url")
    parser.add_argument("project")
    parser.add_argument("files", nargs=2, type=Path)
    parser.add_argument("--out", type=Path, default=Path("pairs.jsonl"))
    options = parser.parse_args()
    answers = {path.stem: read_answers(path) for path in options.files}
    (first, old), (second, new) = answers.items()
    shared = sorted(old.keys() & new.keys())
    with Touchstone(options.url, os.environ["TOUCHSTONE_TOKEN"]) as site:
        project = site.create_project(options.project, options.project)
        project.add_prompts({"messages": [{"role": "user", "content": text}]} for text in shared)
        ids = {prompt["messages"][-1]["content"]: prompt["id"] for prompt in project.prompts()}
        responses = project.add_responses(
            {"prompt": ids[text], "source": source, "text": answers[source][text]}
            for text in shared
            for source in (first, second)
        )
        added = project.add_comparisons(
            (one["id"], other["id"]) for one, other in zip(responses[::2], responses[1::2], strict=True)
        )
        print(f"{added} new comparisons; judge them at {options.url}/projects/{options.project}/compare/")
        wanted = {comparison["id"] for comparison in project.comparisons()}
        while missing := wanted - {judgment["comparison"] for judgment in project.judgments(live=True)}:
            print(f"{len(missing)} of {len(wanted)} to go", end="\r", flush=True)
            time.sleep(10)
        project.export("dpo", options.out)
        print(f"{options.out}: {sum(1 for _ in options.out.open())} pairs")


def read_answers(path: Path) -> dict[str, str]:
    """Responses by prompt. Raises SystemExit that names the line that does not fit."""
    found = {}
    for number, line in enumerate(path.read_text().splitlines(), 1):
        try:
            row = json.loads(line)
            found[str(row["prompt"])] = str(row["response"])
        except (ValueError, KeyError, TypeError) as error:
            raise SystemExit(f'{path}, line {number}: {{"prompt": …, "response": …}} is expected ({error})') from error
    return found


if __name__ == "__main__":
    main()
