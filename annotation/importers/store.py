"""Stores what was read from a file, in one transaction; `placing` knows the tables."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict

from django.contrib.auth.models import User
from django.db import connection, transaction

from annotation.importers.copying import Copying, collector_paused, may_vouch_for_foreign_keys
from annotation.importers.imported import Imported
from annotation.importers.parser_process import Packed
from annotation.importers.placing import Placing
from annotation.models import Comparison, EventKind, Judgment, Project, Prompt, Response
from annotation.services import record_event

# Any number that no other part of the site locks. One import at a time: two would create the same sources, and each
# could wait for the other.
IMPORT_LOCK = 7_310_001

ROWS_THAT_CHANGE_PLANS = 500
"""After so many comparisons Postgres counts the tables again at once: until its own turn comes, a minute later, it
plans for what was there before, and joins of a fresh project took minutes."""


def store_rows(
    project_slug: str,
    batches: Iterator[list[Packed]],
    *,
    format_name: str,
    file_name: str,
    user: User | None = None,
    progress: Callable[[str], None] = lambda _: None,
) -> Imported:
    """Store what was read in one transaction: all usable rows go in, or, after an error, none."""
    done = Imported(project_slug, format_name)
    with transaction.atomic(), collector_paused():
        _take_turn(progress)
        project, _ = Project.objects.get_or_create(slug=project_slug, defaults={"name": project_slug})
        with Copying(vouches=may_vouch_for_foreign_keys()) as copying:
            store = Placing(project, file_name, done, copying)
            for batch in batches:
                store.add(batch)
                progress(f"{done.rows} rows read, {done.comparisons} comparisons stored")
            store.finish()
        if done.comparisons >= ROWS_THAT_CHANGE_PLANS:
            _count_tables()
        counts = {key: value for key, value in asdict(done).items() if key not in ("project", "skipped")}
        record_event(EventKind.IMPORT, project=project, user=user, file=file_name, skipped=len(done.skipped), **counts)
    done.skipped.sort(key=lambda entry: (entry["line"], entry.get("item", 0)))
    return done


def _count_tables() -> None:
    """A first ANALYZE, of what tables are joined by and from a tenth of the usual sample: the rest, texts above all,
    waits for Postgres's own turn, which this does not put off."""
    tables = []
    for model in (Prompt, Response, Comparison, Judgment):
        keys = [f'"{key.column}"' for key in model._meta.concrete_fields if key.is_relation or key.primary_key]
        tables.append(f"{model._meta.db_table} ({', '.join(keys)})")
    with connection.cursor() as cursor:
        cursor.execute("SET LOCAL default_statistics_target = 10")
        cursor.execute(f"ANALYZE {', '.join(tables)}")
        cursor.execute("SET LOCAL default_statistics_target TO DEFAULT")


def _take_turn(progress: Callable[[str], None]) -> None:
    """The advisory lock of imports, held until the transaction ends."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_try_advisory_xact_lock(%s)", [IMPORT_LOCK])
        if not cursor.fetchone()[0]:
            progress("another import is running; waiting for its end")
            cursor.execute("SELECT pg_advisory_xact_lock(%s)", [IMPORT_LOCK])
