"""What importing and exporting cost, against raw COPY of the same rows in the same run.

    python -m benchmarks.export [--rows 50000] [--judgments 87500] [--rounds 3]

Import: a file of touchstone rows, two new responses of about 90 words and one annotation each, four to a prompt, into
an empty project. In turns with it, COPY of the same finished rows straight into the real tables, with their indexes,
constraints and triggers: `copy in` as anybody may do it, `copy in, vouched` without the row-by-row foreign key checks,
as the import does where the database user may.

Export: comparisons with one to three judgments each, as many as `--judgments` says, imported first. In turns over the
rounds: `copy table` is COPY of the finished rows out of one table; `copy query` is COPY of the rows where they lie,
joins and consensus included; `jsonl` and `parquet` are `export_preferences` as a whole (rows, counts, fsync, sha256).
Every measurement runs in a process of its own, whose peak memory is shown. Everything happens in a temporary folder.
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
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.measure import cpu_seconds

ROOT = Path(__file__).resolve().parents[1]
WORDS = ("the", "model", "answers", "tides", "rise", "and", "fall", "because", "moon", "pulls", "water", "towards")
IMPORT_WAYS = ("import", "copy in", "copy in, vouched")
EXPORT_WAYS = ("copy table", "copy query", "jsonl", "parquet")
EXPORT_TABLE = "benchmark_rows"
FILLED = ("project", "batch", "responsesource", "annotator", "prompt", "response", "comparison", "judgment")
Found = dict[str, float]


def text(rng: random.Random) -> str:
    return " ".join(rng.choices(WORDS, k=90)) + f'\n\n"{rng.random():.9f}"'


def write_rows(path: Path, count: int, *, people: tuple[int, ...], judgments: int | None = None) -> None:
    """A file in the touchstone format: four comparisons a prompt, among six sources; up to either number."""
    rng = random.Random(0)
    given = number = 0
    with path.open("w") as file:
        while number < count and (judgments is None or given < judgments):
            if number % 4 == 0:
                prompt = f"Question {number // 4}: {' '.join(rng.choices(WORDS, k=20))}?"
            names = rng.sample(range(40), rng.choice(people))
            given += len(names)
            row = {
                "id": f"row-{number}",
                "group": f"group-{number // 4}",
                "lang": "en",
                "prompt": prompt,
                "responses": [{"model": f"model-{index}", "text": text(rng)} for index in rng.sample(range(6), 2)],
                "annotations": [
                    {"annotator": f"person-{index}", "human": True, "preferred_index": rng.choice([0, 1, 1])}
                    for index in names
                ],
            }
            file.write(json.dumps(row) + "\n")
            number += 1


# ── One measurement, in a process of its own ─────────────────────────────────────────────────────────────────────


def import_rows(file: Path) -> int:
    from annotation.importers import import_file

    return import_file(file, "bench").rows


def dump_tables(folder: Path) -> int:
    from django.db import connection

    connection.ensure_connection()
    for table in FILLED:
        with (
            (folder / f"{table}.bin").open("wb") as file,
            connection.connection.cursor() as cursor,
            cursor.copy(f"COPY annotation_{table} TO STDOUT (FORMAT binary)") as rows,
        ):
            for row in rows:
                file.write(row)
    return 0


def copy_in(folder: Path, *, vouched: bool) -> int:
    from django.db import connection, transaction

    with transaction.atomic(), connection.cursor() as settings:
        if vouched:
            settings.execute("SET LOCAL session_replication_role = replica")
        for table in FILLED:
            with (
                (folder / f"{table}.bin").open("rb") as file,
                connection.connection.cursor() as cursor,
                cursor.copy(f"COPY annotation_{table} FROM STDIN (FORMAT binary)") as rows,
            ):
                while chunk := file.read(2**18):
                    rows.write(chunk)
    return 0


def clear(_: Path) -> int:
    from django.db import connection

    with connection.cursor() as cursor:
        cursor.execute("TRUNCATE annotation_project, annotation_responsesource, annotation_event CASCADE")
    return 0


def prepare_export(_: Path) -> int:
    from django.db import connection, transaction

    from annotation.export import Kind
    from annotation.export.consensus import make_consensus
    from annotation.export.files import json_query
    from annotation.export.tables import make_table
    from annotation.models import Project

    project = Project.objects.get(slug="bench")
    with transaction.atomic(), connection.cursor() as cursor:
        make_consensus(project, humans_only=True)
        query = json_query(make_table(Kind.DPO, project, humans_only=True))
        cursor.execute(f"CREATE UNLOGGED TABLE {EXPORT_TABLE} AS {query}")
    with connection.cursor() as cursor:
        cursor.execute("VACUUM ANALYZE")
    return 0


def export(out: Path) -> int:
    from annotation.export import export_preferences
    from annotation.models import Project

    return export_preferences(Project.objects.get(slug="bench"), "dpo", out, humans_only=True).rows


def copy_out(out: Path, *, from_table: bool) -> int:
    from django.db import transaction

    from annotation.export import Kind
    from annotation.export.consensus import make_consensus
    from annotation.export.copying import copy_lines
    from annotation.export.files import json_query
    from annotation.export.tables import make_table
    from annotation.models import Project

    project = Project.objects.get(slug="bench")
    rows = 0
    with transaction.atomic(), out.open("wb") as file:
        query = f"SELECT * FROM {EXPORT_TABLE}"
        if not from_table:
            make_consensus(project, humans_only=True)
            query = json_query(make_table(Kind.DPO, project, humans_only=True))
        for line in copy_lines(query):
            file.write(line)
            rows += 1
    return rows


MEASURED: dict[str, Callable[[Path], int]] = {
    "import": import_rows,
    "dump": dump_tables,
    "clear": clear,
    "copy in": lambda folder: copy_in(folder, vouched=False),
    "copy in, vouched": lambda folder: copy_in(folder, vouched=True),
    "prepare": prepare_export,
    "copy table": lambda out: copy_out(out, from_table=True),
    "copy query": lambda out: copy_out(out, from_table=False),
    "jsonl": lambda out: export(out.with_suffix(".jsonl")),
    "parquet": lambda out: export(out.with_suffix(".parquet")),
}


def measure(way: str, path: Path) -> Found:
    started, began = time.perf_counter(), time.process_time()
    rows = MEASURED[way](path)
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return {
        "rows": rows,
        "seconds": time.perf_counter() - started,
        "cpu": time.process_time() - began,
        "child_cpu": children.ru_utime + children.ru_stime,
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def run(way: str, path: Path) -> Found:
    """One measurement; `server_cpu` is what the database spent on it."""
    server = int((Path(os.environ["TOUCHSTONE_DATA"]) / "pg18" / "postmaster.pid").read_text().split()[0])
    before = cpu_seconds(server)
    child = subprocess.run(
        [sys.executable, "-m", "benchmarks.export", "--measure", way, "--path", str(path)],
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    if child.returncode:
        raise SystemExit(f"{way} failed:\n{child.stderr}")
    return {**json.loads(child.stdout), "server_cpu": cpu_seconds(server) - before}


# ── The whole ────────────────────────────────────────────────────────────────────────────────────────────────────


def time_import(folder: Path, count: int, rounds: int) -> None:
    file = folder / "rows.jsonl"
    write_rows(file, count, people=(1,))
    run("import", file)
    run("dump", folder)
    found: dict[str, list[Found]] = {way: [] for way in (*IMPORT_WAYS, "import again")}
    for _ in range(rounds):
        for way in IMPORT_WAYS[::-1]:
            run("clear", folder)
            found[way].append(run(way, file if way == "import" else folder))
        found["import again"].append(run("import", file))
    report(f"{count:,} rows in", found, bases=IMPORT_WAYS[1:], rows=count)
    run("clear", folder)
    file.unlink()


def time_export(folder: Path, judgments: int, rounds: int) -> None:
    file = folder / "rows.jsonl"
    write_rows(file, judgments, people=(1, 1, 2, 3), judgments=judgments)
    imported = run("import", file)
    file.unlink()
    print(f"{imported['rows'] / imported['seconds']:,.0f} rows/s imported, {imported['rows']:,.0f} comparisons")
    run("prepare", folder)
    found: dict[str, list[Found]] = {way: [] for way in EXPORT_WAYS}
    for _ in range(rounds):
        for way in EXPORT_WAYS:
            found[way].append(run(way, folder / "out"))
    report(f"{judgments:,} judgments out", found, bases=EXPORT_WAYS[:2])


def report(title: str, found: dict[str, list[Found]], *, bases: tuple[str, ...], rows: int | None = None) -> None:
    print(f"\n{title}, medians of {len(found[bases[0]])}, load {os.getloadavg()[0]:.1f}")
    speeds = {
        way: statistics.median((rows or one["rows"]) / one["seconds"] for one in of_way)
        for way, of_way in found.items()
    }
    for way, of_way in found.items():
        ratios = ", ".join(f"{speeds[way] / speeds[base]:.2f} of {base}" for base in bases)
        own, child, server = (
            statistics.median(one[name] / (rows or one["rows"]) * 1e6 for one in of_way)
            for name in ("cpu", "child_cpu", "server_cpu")
        )
        peak = max(one["peak_mib"] for one in of_way)
        cost = f"{own:.0f} + {child:.0f} + {server:.0f} µs of CPU a row (own + parser + database)"
        print(f"{way:>16}: {speeds[way]:9,.0f} rows/s, {ratios}, {cost}, peak {peak:.0f} MiB", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=50_000, help="to import; 0: leave that out")
    parser.add_argument("--judgments", type=int, default=87_500, help="to export; 0: leave that out")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    parser.add_argument("--path", type=Path, help=argparse.SUPPRESS)
    options: Any = parser.parse_args()
    sys.path.insert(0, str(ROOT))
    os.environ["DJANGO_SETTINGS_MODULE"] = "config.settings"
    if options.measure:
        import django

        django.setup()
        print(json.dumps(measure(options.measure, options.path)))
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
            if options.rows:
                time_import(Path(folder), options.rows, options.rounds)
            if options.judgments:
                time_export(Path(folder), options.judgments, options.rounds)


if __name__ == "__main__":
    main()
