"""Pages of prompts and comparisons out of a million: newest first, by marks and words, without OFFSET and COUNT.

Everything is read block by block of ids (`annotation_blocks` in the database), beginning with small blocks at the
page's edge: what a page costs depends on what it shows and not on how many rows there are or where the matches lie.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any, Generic, TypeVar

from django.db import connection

from annotation.models import JudgedState, Project, Tally
from annotation.search_terms import Search, excerpt

PAGE_ROWS = 50
COUNTED_UP_TO = 1000
VALUES_SHOWN = 100  # the most frequent tasks, topics …, to choose from
TEXT_READ = 20_000  # characters in which a page looks for the hit that it shows
BLOCK_SHIFTS = (10, 13, 16, 19, 22)
NOT_SET = "-"
"""What a filter's value says for rows where nothing is said."""

RowT = TypeVar("RowT")


@dataclass(frozen=True)
class IndexState:
    """How far the index is. `behind_since`: when the oldest change happened that is not in it yet."""

    newest_prompt: int
    newest_comparison: int
    behind_since: datetime | None
    unread_prompts: int
    """Prompts of the site whose words cannot be searched yet; one more than COUNTED_UP_TO stands for more."""


def index_state() -> IndexState:
    """One query."""
    with connection.cursor() as cursor:
        cursor.execute(
            """
            SELECT coalesce((SELECT max(prompt_id) FROM annotation_promptentry), 0),
                   coalesce((SELECT max(comparison_id) FROM annotation_comparisonentry), 0),
                   (SELECT at FROM annotation_browsechange ORDER BY id LIMIT 1),
                   (SELECT count(*) FROM (SELECT FROM annotation_stalewords LIMIT %s) unread)
            """,
            [COUNTED_UP_TO + 1],
        )
        return IndexState(*cursor.fetchone())


@dataclass(frozen=True)
class _Filter:
    """What a list is narrowed to; None: not by this. The empty string: nothing is said there."""

    lang: str | None = None
    skill: str | None = None
    state: int | None = None
    batch: int | None = None

    @classmethod
    def of(cls, given: Mapping[str, str]) -> Any:
        """Out of an address; what makes no sense there is passed over."""
        values: dict[str, Any] = {}
        for column in fields(cls):
            value = given.get(column.name, "").strip()
            if not value:
                continue
            if column.name in ("state", "batch"):
                if value.isdecimal() and len(value) < 16:
                    values[column.name] = int(value)
            elif column.name == "archived":
                values[column.name] = value == "1"
            elif column.name == "query":
                values[column.name] = value[:500]
            else:
                values[column.name] = "" if value == NOT_SET else value
        return cls(**values)

    def params(self) -> dict[str, str]:
        """The other way round, for addresses."""
        params = {}
        for column in fields(self):
            value = getattr(self, column.name)
            if value is None or (column.name in ("query", "archived") and not value):
                continue
            params[column.name] = "1" if value is True else str(value) or NOT_SET
        return params

    def facets(self) -> list[tuple[str, str]]:
        """(dimension, value) of everything that is a mark."""
        return [
            (column.name, str(getattr(self, column.name)))
            for column in fields(self)
            if column.name not in ("query", "archived") and getattr(self, column.name) is not None
        ]

    @property
    def scope(self) -> str:
        """The mark that everything in the list has."""
        return "all"

    def marks(self, project: Project) -> list[str]:
        return [f"@p{project.pk}", self.scope, *(f"{dimension}={value}" for dimension, value in self.facets())]


@dataclass(frozen=True)
class PromptFilter(_Filter):
    task: str | None = None
    topic: str | None = None
    tag: str | None = None
    query: str = ""
    archived: bool = False

    @property
    def scope(self) -> str:
        return "archived" if self.archived else "live"


@dataclass(frozen=True)
class ComparisonFilter(_Filter):
    similar: str | None = None


@dataclass(frozen=True)
class Cursor:
    """Where a page begins: below an id (`after`, further down the list), above one (`before`), or at the top."""

    after: int | None = None
    before: int | None = None

    @classmethod
    def of(cls, given: Mapping[str, str]) -> Cursor:
        after, before = (given.get(name, "") for name in ("after", "before"))
        is_id = [value.isdecimal() and len(value) < 19 for value in (after, before)]
        return cls(int(after) if is_id[0] else None, int(before) if is_id[1] and not is_id[0] else None)


@dataclass(frozen=True)
class Page(Generic[RowT]):
    """`newer` and `older` are cursors' values, None at either end."""

    rows: list[RowT]
    newer: int | None = None
    older: int | None = None


@dataclass(frozen=True)
class Count:
    """How many there are, exact up to a limit."""

    value: int
    is_at_least: bool = False


# ── Which ids ────────────────────────────────────────────────────────────────────────────────────────────────────


def blocks_down(high: int) -> Iterator[str]:
    """The blocks that hold the ids from `high` to 0, growing as soon as a larger one fits."""
    level, at = 0, high
    while at >= 0:
        block = at >> BLOCK_SHIFTS[level]
        yield f"@{level}:{block}"
        at = (block << BLOCK_SHIFTS[level]) - 1
        while level + 1 < len(BLOCK_SHIFTS) and (at + 1) % (1 << BLOCK_SHIFTS[level + 1]) == 0:
            level += 1


def blocks_up(low: int, high: int) -> Iterator[str]:
    """The blocks that hold the ids from `low` to `high` and perhaps some more."""
    level, at = 0, low
    while at <= high:
        block = at >> BLOCK_SHIFTS[level]
        yield f"@{level}:{block}"
        at = (block + 1) << BLOCK_SHIFTS[level]
        while level + 1 < len(BLOCK_SHIFTS) and at % (1 << BLOCK_SHIFTS[level + 1]) == 0:
            level += 1


# The blocks come in order, each is sorted, and the limit ends the loop: so the whole comes in order.
_IDS = """
SELECT hit.id
FROM unnest(%(blocks)s::text[]) AS step(block) CROSS JOIN LATERAL (
    SELECT e.{key} AS id FROM {table} e {join}
    WHERE e.marks @> %(marks)s::text[] AND e.marks @> ARRAY[step.block] {words} {edge}
    ORDER BY e.{key} {order}
) hit
LIMIT %(limit)s
"""
_WORDS_JOIN = "JOIN annotation_promptwords w ON w.prompt_id = e.prompt_id"
# The block narrows the words' own index, too.
_WORDS = "AND w.vector @@ %(words)s::tsquery AND w.vector @@ quote_literal(step.block)::tsquery"


def _ids(model: str, newest: int, marks: list[str], cursor: Cursor, limit: int, search: Search | None) -> list[int]:
    """The first ids from the cursor on, in the order in which the cursor goes."""
    key = f"{model}_id"
    values: dict[str, Any] = {"marks": marks, "limit": limit}
    if cursor.before is not None:
        edge, order = f"AND e.{key} > %(edge)s", "ASC"
        values |= {"edge": cursor.before, "blocks": list(blocks_up(cursor.before + 1, newest))}
    elif cursor.after is not None:
        edge, order = f"AND e.{key} < %(edge)s", "DESC"
        values |= {"edge": cursor.after, "blocks": list(blocks_down(min(cursor.after - 1, newest)))}
    else:
        edge, order = "", "DESC"
        values["blocks"] = list(blocks_down(newest))
    join = words = ""
    if search is not None:
        join, words = _WORDS_JOIN, _WORDS
        # As a constant, so that the planner sees how rare the words are.
        values["words"] = search.words
    statement = _IDS.format(key=key, table=f"annotation_{model}entry", join=join, words=words, edge=edge, order=order)
    with connection.cursor() as cursor_:
        cursor_.execute(statement, values)
        return [pk for (pk,) in cursor_.fetchall()]


def _page_of_ids(
    model: str, newest: int, marks: list[str], cursor: Cursor, search: Search | None
) -> tuple[list[int], int | None, int | None]:
    """(ids, newer, older)"""
    ids = _ids(model, newest, marks, cursor, PAGE_ROWS + 1, search)
    has_more, ids = len(ids) > PAGE_ROWS, ids[:PAGE_ROWS]
    if cursor.before is not None:
        ids.reverse()
        newer, older = has_more, True
    else:
        newer, older = cursor.after is not None, has_more
    return ids, ids[0] if newer and ids else None, ids[-1] if older and ids else None


def _count(
    model: str, newest: int, project: Project, given: _Filter, search: Search | None, scope: Tally.Scope
) -> Count:
    """From the tally where one mark says it all, otherwise counted up to a limit; one query either way."""
    facets = given.facets()
    is_tallied = search is None and (not facets or (len(facets) == 1 and given.scope != "archived"))
    if is_tallied:
        dimension, value = facets[0] if facets else (given.scope, "")
        rows = Tally.objects.filter(project=project, scope=scope, dimension=dimension, value=value)
        return Count(rows.values_list("count", flat=True).first() or 0)
    ids = _ids(model, newest, given.marks(project), Cursor(), COUNTED_UP_TO + 1, search)
    return Count(min(len(ids), COUNTED_UP_TO), len(ids) > COUNTED_UP_TO)


def matching_ids(
    project: Project, given: PromptFilter, state: IndexState, *, search: Search | None, after: int | None, limit: int
) -> list[int]:
    """Prompts that the filter lets through, newest first, below an id: for edits of everything that matches."""
    return _ids("prompt", state.newest_prompt, given.marks(project), Cursor(after=after), limit, search)


def tallied_values(project: Project, scope: Tally.Scope) -> dict[str, list[tuple[str, int]]]:
    """The most frequent (value, count) of each dimension; one query."""
    dimensions = ["task", "lang", "skill", "topic", "tag", "state", "batch", "live", "archived", "all", "similar"]
    with connection.cursor() as cursor:
        cursor.execute(
            """
            SELECT wanted.dimension, t.value, t.count
            FROM unnest(%s::text[]) AS wanted(dimension) CROSS JOIN LATERAL (
                SELECT value, count FROM annotation_tally
                WHERE project_id = %s AND scope = %s AND dimension = wanted.dimension AND count > 0
                ORDER BY count DESC LIMIT %s
            ) t
            """,
            [dimensions, project.pk, scope, VALUES_SHOWN],
        )
        values: dict[str, list[tuple[str, int]]] = {dimension: [] for dimension in dimensions}
        for dimension, value, count in cursor.fetchall():
            values[dimension].append((value, count))
        return values


# ── Prompts ──────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass
class PromptRow:
    """`parts` is what the list shows of the prompt: (text, is a hit of the search)."""

    id: int
    task: str
    lang: str
    skill: str
    topic: str
    tags: list[str]
    turns: int
    responses: int
    comparisons: int
    state: JudgedState
    parts: list[tuple[str, bool]]


_PROMPT_ROWS = """
SELECT p.id, p.task, p.lang, p.skill, p.topic, p.tags, jsonb_array_length(p.messages),
       (SELECT count(*) FROM annotation_response r WHERE r.prompt_id = p.id),
       (SELECT count(*) FROM annotation_comparison c WHERE c.prompt_id = p.id),
       (SELECT substr(mark, 7)::int FROM unnest(e.marks) mark WHERE mark LIKE 'state=%%'),
       left(p.messages -> -1 ->> 'content', %(chars)s), {texts}
FROM annotation_prompt p JOIN annotation_promptentry e ON e.prompt_id = p.id
WHERE p.id = ANY(%(ids)s)
"""
_ALL_TEXTS = """
array(SELECT left(message ->> 'content', %(chars)s) FROM jsonb_array_elements(p.messages) message)
|| array(SELECT left(r.text, %(chars)s) FROM annotation_response r WHERE r.prompt_id = p.id ORDER BY r.id)
"""


def prompt_page(
    project: Project, given: PromptFilter, cursor: Cursor, state: IndexState, *, search: Search | None
) -> Page[PromptRow]:
    """Two queries."""
    ids, newer, older = _page_of_ids("prompt", state.newest_prompt, given.marks(project), cursor, search)
    statement = _PROMPT_ROWS.format(texts=_ALL_TEXTS if search else "'{}'::text[]")
    rows = {}
    with connection.cursor() as db:
        db.execute(statement, {"ids": ids, "chars": TEXT_READ if search else 400})
        for *columns, judged, last, texts in db.fetchall():
            values = [*columns, JudgedState(judged), excerpt([last, *texts], search.patterns if search else ())]
            rows[columns[0]] = PromptRow(*values)
    return Page([rows[pk] for pk in ids], newer, older)


def prompt_count(project: Project, given: PromptFilter, state: IndexState, *, search: Search | None) -> Count:
    """One query."""
    return _count("prompt", state.newest_prompt, project, given, search, Tally.Scope.PROMPT)


# ── Comparisons ──────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass
class ComparisonRow:
    """`votes` are the standing verdicts: (preference, count). `similarity` of the responses in percent, if known."""

    id: int
    prompt_id: int
    text: str
    lang: str
    batch: str
    sources: list[str]
    state: JudgedState
    required_count: int
    is_gold: bool
    is_withdrawn: bool
    has_equal_texts: bool
    votes: list[tuple[str, int]]


_COMPARISON_ROWS = """
SELECT c.id, c.prompt_id, left(p.messages -> -1 ->> 'content', 400), c.lang, coalesce(b.name, ''),
       ARRAY[source_a.name, source_b.name], e.state, c.required_count, c.is_gold, c.is_withdrawn,
       ra.text_sha256 = rb.text_sha256,
       (SELECT jsonb_object_agg(preference, votes) FROM (
            SELECT j.preference, count(*) AS votes FROM annotation_judgment j
            WHERE j.comparison_id = c.id AND j.superseded_at IS NULL AND j.round = 0 GROUP BY j.preference
       ) v)
FROM annotation_comparison c
JOIN annotation_comparisonentry e ON e.comparison_id = c.id
JOIN annotation_prompt p ON p.id = c.prompt_id
JOIN annotation_response ra ON ra.id = c.response_a_id
JOIN annotation_response rb ON rb.id = c.response_b_id
JOIN annotation_responsesource source_a ON source_a.id = ra.source_id
JOIN annotation_responsesource source_b ON source_b.id = rb.source_id
LEFT JOIN annotation_batch b ON b.id = c.batch_id
WHERE c.id = ANY(%s)
"""
_PREFERENCES = ("a", "b", "tie", "neither", "ranked")


def comparison_rows(ids: Iterable[int]) -> list[ComparisonRow]:
    """In the order of the ids; one query."""
    ids = list(ids)
    rows = {}
    with connection.cursor() as db:
        db.execute(_COMPARISON_ROWS, [ids])
        for *columns, state, required, is_gold, is_withdrawn, is_equal, votes in db.fetchall():
            given = sorted(json.loads(votes or "{}").items(), key=lambda vote: _PREFERENCES.index(vote[0]))
            values = [*columns, JudgedState(state), required, is_gold, is_withdrawn, is_equal, given]
            rows[columns[0]] = ComparisonRow(*values)
    return [rows[pk] for pk in ids if pk in rows]


def comparison_page(
    project: Project, given: ComparisonFilter, cursor: Cursor, state: IndexState
) -> Page[ComparisonRow]:
    """Two queries."""
    ids, newer, older = _page_of_ids("comparison", state.newest_comparison, given.marks(project), cursor, None)
    return Page(comparison_rows(ids), newer, older)


def comparison_count(project: Project, given: ComparisonFilter, state: IndexState) -> Count:
    """One query."""
    return _count("comparison", state.newest_comparison, project, given, None, Tally.Scope.COMPARISON)
