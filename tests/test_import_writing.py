"""How an import writes: in one transaction, beside a process that parses, by COPY."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any
from uuid import RFC_4122, UUID

import pytest
from django.db import connection
from django.db.models import Exists, OuterRef
from hypothesis import given
from hypothesis import strategies as st
from psycopg.errors import CheckViolation

from annotation.importers import ImportRefusedError, import_file
from annotation.importers.copying import may_vouch_for_foreign_keys, random_uuids
from annotation.importers.rows import Row, messages_json
from annotation.models import (
    Comparison,
    Conversation,
    Event,
    FurtherResponse,
    Judgment,
    Project,
    Prompt,
    Rating,
    Response,
    Turn,
)
from annotation.services import content_sha256
from tests.importing import import_lines, touchstone_row, write_lines
from tests.test_importers import EXAMPLES


def parse_two_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first two rows of a file here, the others in a process of its own."""
    from annotation.importers import parser_process

    monkeypatch.setattr(parser_process, "RECORDS_WITHOUT_CHILD", 2)
    monkeypatch.setattr(parser_process, "BATCH_RECORDS", 2)


@pytest.mark.django_db(transaction=True)
def test_nothing_stays_of_an_import_that_breaks_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parse_two_at_a_time(monkeypatch)
    path = write_lines(tmp_path / "rows.jsonl", [touchstone_row(number) for number in range(6)])

    def break_off(message: str) -> None:
        if message.startswith("4 rows"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        import_file(path, "half", progress=break_off)
    assert not Project.objects.exists()
    assert not Prompt.objects.exists()
    assert import_file(path, "half").comparisons == 6


@pytest.mark.django_db
@pytest.mark.parametrize("refused", [3, 5])  # while the next rows are put together, and after the last ones
def test_nothing_stays_where_postgres_refuses_what_is_copied_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refused: int
) -> None:
    parse_two_at_a_time(monkeypatch)
    path = write_lines(tmp_path / "rows.jsonl", [touchstone_row(number) for number in range(6)])
    with connection.cursor() as cursor:
        cursor.execute(f"ALTER TABLE annotation_comparison ADD CONSTRAINT no CHECK (external_id <> 'row-{refused}')")
    with pytest.raises(CheckViolation, match='violates check constraint "no"'):
        import_file(path, "half")
    assert not Project.objects.exists()
    assert not Response.objects.exists()
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE annotation_comparison DROP CONSTRAINT no")
    assert import_file(path, "half").comparisons == 6


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(
    ("accident", "error", "sentence"),
    [
        (lambda: os.kill(os.getpid(), signal.SIGKILL), RuntimeError, "parses the file died"),
        (lambda: int("x"), RuntimeError, "invalid literal"),
        (lambda: os.stat("/gone/away"), ImportRefusedError, "cannot be read: No such file"),
    ],
)
def test_nothing_stays_where_the_process_that_parses_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, accident: Callable[[], object], error: type, sentence: str
) -> None:
    from annotation.importers import touchstone

    parse_two_at_a_time(monkeypatch)
    path = write_lines(tmp_path / "rows.jsonl", [touchstone_row(number) for number in range(6)])
    parent, parse = os.getpid(), touchstone.parse

    def parse_or_fail(record: dict[str, Any]) -> Row:
        if os.getpid() != parent and "4" in record["id"]:
            accident()
        return parse(record)

    monkeypatch.setattr(touchstone, "parse", parse_or_fail)
    with pytest.raises(error, match=sentence):
        import_file(path, "half")
    assert not Project.objects.exists()


# ── How rows go in ───────────────────────────────────────────────────────────────────────────────────────────────

_MESSAGES = st.lists(
    st.fixed_dictionaries({"content": st.text(max_size=30), "role": st.sampled_from(["user", "assistant", "system"])}),
    min_size=1,
    max_size=3,
)


@given(_MESSAGES)
def test_messages_are_hashed_as_everywhere(messages: Any) -> None:
    assert sha256(messages_json(messages)).hexdigest() == content_sha256(messages)


def test_drawn_uuids_are_of_version_4() -> None:
    drawn = [UUID(bytes=value) for value in random_uuids(300)]
    assert len(set(drawn)) == 300
    assert {(one.version, one.variant) for one in drawn} == {(4, RFC_4122)}


def dangling(model: type[Any]) -> int:
    """Rows of a table that point at nothing, counted by joins and not by the constraints."""
    found = 0
    for key in model._meta.concrete_fields:
        if key.is_relation:
            parents = key.related_model.objects.filter(pk=OuterRef(key.attname))
            found += model.objects.exclude(**{key.attname: None}).filter(~Exists(parents)).count()
    return found


IMPORTED_TABLES = (Prompt, Response, Comparison, FurtherResponse, Judgment, Rating, Conversation, Turn)


@pytest.mark.django_db
@pytest.mark.parametrize("may_vouch", [True, False])
def test_every_foreign_key_holds_whoever_checks_it(tmp_path: Path, may_vouch: bool) -> None:
    if not may_vouch:  # as on a managed server, where the site's user may not change the setting
        with connection.cursor() as cursor:
            cursor.execute("CREATE ROLE modest; GRANT ALL ON ALL TABLES IN SCHEMA public TO modest")
            cursor.execute("GRANT ALL ON ALL SEQUENCES IN SCHEMA public TO modest; SET LOCAL ROLE modest")
    assert may_vouch_for_foreign_keys() == may_vouch
    for rows in EXAMPLES.values():
        import_lines(tmp_path, rows)
        import_lines(tmp_path, rows)
    for model in IMPORTED_TABLES:
        assert model._default_manager.exists()
        assert dangling(model) == 0
    with connection.cursor() as cursor:
        cursor.execute("SHOW session_replication_role")
        assert cursor.fetchone() == ("origin",)
        cursor.execute("RESET ROLE; SET CONSTRAINTS ALL IMMEDIATE")


@pytest.mark.django_db
def test_triggers_see_what_imports_write() -> None:
    tables = [model._meta.db_table for model in (*IMPORTED_TABLES, Event)]
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT tgname, tgenabled FROM pg_trigger WHERE NOT tgisinternal AND tgrelid = ANY(%s::regclass[])",
            [tables],
        )
        triggers = dict(cursor.fetchall())
    skipped = [name for name, enabled in triggers.items() if enabled != "A" and "event" not in name]
    assert skipped == [], "ENABLE ALWAYS them: an import vouches for its foreign keys, which skips ordinary triggers"
    assert "annotation_note_new_responses" in triggers
