"""What importing and exporting cost, against raw COPY of the same rows in the same run.

    python benchmarks/export.py [--comparisons 50000] [--rounds 3]

Generates comparisons (two responses of about 90 words, one to three judgments), imports them through the command's own
code, and then takes turns over the rounds: `copy table` is COPY of the finished rows out of one table, the floor;
`copy query` is COPY of the rows where they lie, joins and consensus included; `jsonl` and `parquet` are
`export_preferences` as a whole (rows, counts, fsync, sha256). Every measurement runs in a process of its own, whose
peak memory is shown. Everything happens in a temporary folder.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
WORDS = ("the", "model", "answers", "tides", "rise", "and", "fall", "because", "moon", "pulls", "water", "towards")
WAYS = ("copy table", "copy query", "jsonl", "parquet")
DPO_TABLE = "benchmark_rows"


def text(rng: random.Random) -> str:
    return " ".join(rng.choices(WORDS, k=90)) + f'\n\n"{rng.random():.9f}"'


def write_rows(path: Path, comparisons: int) -> None:
    """A file in the touchstone format: four comparisons a prompt, among six sources."""
    rng = random.Random(0)
    with path.open("w") as file:
        for number in range(comparisons):
            if number % 4 == 0:
                prompt = f"Question {number // 4}: {' '.join(rng.choices(WORDS, k=20))}?"
            people = rng.sample(range(40), rng.choice([1, 1, 2, 3]))
            row = {
                "id": f"row-{number}",
                "group": f"group-{number // 4}",
                "lang": "en",
                "prompt": prompt,
                "responses": [{"model": f"model-{index}", "text": text(rng)} for index in rng.sample(range(6), 2)],
                "annotations": [
                    {"annotator": f"person-{index}", "human": True, "preferred_index": rng.choice([0, 1, 1])}
                    for index in people
                ],
            }
            file.write(json.dumps(row) + "\n")


def measure(way: str, out: Path) -> dict[str, float]:
    """One measurement; runs in its own process."""
    from django.db import connection, transaction

    from annotation.export import _ROWS, Kind, _copy_lines, _make_consensus, export_preferences
    from annotation.importers import import_file
    from annotation.models import Project

    if way == "import":
        started = time.perf_counter()
        rows = import_file(out, "bench").rows
        return {"seconds": time.perf_counter() - started, "rows": rows}
    project = Project.objects.get(slug="bench")
    if way == "prepare":
        with transaction.atomic(), connection.cursor() as cursor:
            _make_consensus(project, humans_only=True)
            cursor.execute(f"CREATE UNLOGGED TABLE {DPO_TABLE} AS {_ROWS[Kind.DPO]}")
        with connection.cursor() as cursor:
            cursor.execute("VACUUM ANALYZE")
        return {}
    started = time.perf_counter()
    if way in ("jsonl", "parquet"):
        rows = export_preferences(project, "dpo", out.with_suffix(f".{way}"), humans_only=True).rows
    else:
        sql = _ROWS[Kind.DPO] if way == "copy query" else f"SELECT * FROM {DPO_TABLE}"
        rows = 0
        with transaction.atomic(), out.open("wb") as file:
            if way == "copy query":
                _make_consensus(project, humans_only=True)
            for line in _copy_lines(sql):
                file.write(line)
                rows += 1
    return {"seconds": time.perf_counter() - started, "rows": rows}


def run_measurement(way: str, out: Path) -> dict[str, float]:
    child = subprocess.run(
        [sys.executable, __file__, "--measure", way, "--out", str(out)], capture_output=True, text=True, cwd=ROOT
    )
    if child.returncode:
        raise SystemExit(f"{way} failed:\n{child.stderr}")
    return json.loads(child.stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--comparisons", type=int, default=50_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    sys.path.insert(0, str(ROOT))
    os.environ["DJANGO_SETTINGS_MODULE"] = "config.settings"
    if options.measure:
        import django

        django.setup()
        found = measure(options.measure, options.out)
        peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(json.dumps({**found, "peak_mib": peak_mib}))
        return

    with tempfile.TemporaryDirectory(prefix="touchstone-benchmark-") as folder:
        os.environ["TOUCHSTONE_DATA"] = folder
        os.environ.pop("DATABASE_URL", None)
        import django
        from django.conf import settings
        from django.core.management import call_command

        django.setup()
        from config.embedded import postgres

        with postgres.running(settings.DATA_DIR, settings.SOCKET_DIR):
            call_command("migrate", verbosity=0)
            rows = Path(folder) / "rows.jsonl"
            write_rows(rows, options.comparisons)
            for name in ("import", "import again"):
                found = run_measurement("import", rows)
                print(f"{name:>12}: {found['rows'] / found['seconds']:9,.0f} rows/s, peak {found['peak_mib']:.0f} MiB")
            run_measurement("prepare", rows)
            measured: dict[str, list[dict[str, float]]] = {way: [] for way in WAYS}
            for _ in range(options.rounds):
                for way in WAYS:
                    measured[way].append(run_measurement(way, Path(folder) / "out"))
            speeds = {
                way: statistics.median(found["rows"] / found["seconds"] for found in of_way)
                for way, of_way in measured.items()
            }
            for way, of_way in measured.items():
                ratios = ", ".join(f"{speeds[way] / speeds[base]:.2f} of {base}" for base in WAYS[:2])
                peak = max(found["peak_mib"] for found in of_way)
                print(f"{way:>12}: {speeds[way]:9,.0f} rows/s, {ratios}, peak {peak:.0f} MiB")


if __name__ == "__main__":
    main()
