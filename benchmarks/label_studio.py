"""Server CPU of one judgment, ours beside Label Studio's on the same PostgreSQL, in the same run.

    python -m benchmarks.label_studio [--annotators 1 8 32] [--judgments 120] [--rounds 3] [--folder FOLDER]

A judgment is a claim and a submit: with us one POST that stores the vote and answers with the next comparison as HTML;
with Label Studio the annotation POST that its page makes, and its API's GET of the next task, both in JSON (its page
also asks for counts and for the history). The texts, the number of items, the gunicorn settings and the database
server are the same, and everybody has a session. The two take turns, round by round, with everybody judging without a
pause; each figure is the median of the rounds. CPU is what the kernel charged to the web processes and to PostgreSQL.
First use installs Label Studio into a virtual environment under --folder; a run's data goes to a temporary folder.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.label_studio_server import (
    VERSION,
    LabelStudioAnnotator,
    database_url,
    debian_postgres,
    default_folder,
    install,
    label_studio,
)
from benchmarks.measure import add_json_option, cpu_seconds, machine, median, p95, print_table, write_json
from benchmarks.people import Annotator, TouchstoneAnnotator, at_once, fill, make_items
from benchmarks.servers import Served, prepared_django, touchstone

WARM_UP = 3  # of each annotator in each round, not counted


def measure(site: Served, people: Sequence[Annotator], judgments: int) -> dict[str, float]:
    before: list[float] = []
    times, wall = at_once(
        people,
        max(judgments // len(people), 5),
        warm_up=WARM_UP,
        on_start=lambda: before.extend([cpu_seconds(site.web_pid), cpu_seconds(site.database_pid)]),
    )
    web, database = cpu_seconds(site.web_pid) - before[0], cpu_seconds(site.database_pid) - before[1]
    count = len(times)
    return {
        "judgments/s": count / wall,
        "web CPU ms": web / count * 1000,
        "db CPU ms": database / count * 1000,
        "CPU ms": (web + database) / count * 1000,
        "p50 ms": median(times) * 1000,
        "p95 ms": p95(times) * 1000,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--annotators", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--judgments", type=int, default=120, help="counted a round, over all annotators")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path, default=default_folder(), help="where Label Studio is installed")
    parser.add_argument(
        "--keep-connections",
        action="store_true",
        help="spare Label Studio the new database connection that it opens for every request",
    )
    add_json_option(parser)
    options = parser.parse_args()
    python = install(options.folder)
    most = max(options.annotators)
    items = make_items(
        2 * most + sum(options.rounds * (max(options.judgments, 5 * n) + n * WARM_UP) for n in options.annotators)
    )
    with (
        tempfile.TemporaryDirectory(prefix="label-studio-") as name,
        debian_postgres(Path(name)) as postgres,
        prepared_django(database_url=database_url(postgres[0], "touchstone")),
        label_studio(
            python,
            Path(name),
            postgres=postgres,
            items=items,
            people=most,
            keep_connections=options.keep_connections,
        ) as theirs,
    ):
        fill(items, most)
        with touchstone(postgres[1]) as ours:
            figures = compare(ours, theirs, theirs.project_id, options)
    state = machine()
    rows = []
    for annotators, measured in figures.items():
        ratio = measured["ours"]["CPU ms"] / measured["label studio"]["CPU ms"]
        for name, row in measured.items():
            rows.append({"annotators": annotators, "of": name, **row, "ratio": f"1/{1 / ratio:.1f}"})
    print_table(rows)
    kept = ", connections kept" if options.keep_connections else ""
    print(f"Label Studio {VERSION}{kept}; {len(items):,} items")
    print(f"load average at the end: {state['load_average']}, {state['cores']} cores")
    write_json(options.json, {"rows": rows, "connections kept": options.keep_connections, "machine": state})


def compare(ours: Served, theirs: Served, project_id: int, options: Any) -> dict[int, dict[str, dict[str, float]]]:
    most = max(options.annotators)
    people: dict[str, tuple[Served, list[Annotator]]] = {
        "ours": (ours, [TouchstoneAnnotator(ours.port, f"annotator{n}") for n in range(most)]),
        "label studio": (
            theirs,
            [LabelStudioAnnotator(theirs.port, f"annotator{n}", project_id) for n in range(most)],
        ),
    }
    figures = {}
    for annotators in options.annotators:
        rounds: dict[str, list[dict[str, float]]] = {name: [] for name in people}
        for _ in range(options.rounds):
            for name, (site, judges) in people.items():
                rounds[name].append(measure(site, judges[:annotators], options.judgments))
        figures[annotators] = {
            name: {figure: median([row[figure] for row in measured]) for figure in measured[0]}
            for name, measured in rounds.items()
        }
    return figures


if __name__ == "__main__":
    main()
