"""Pages of prompts and comparisons out of a million: newest first, by marks and words, without OFFSET and COUNT.

Everything is read block by block of ids (`annotation_blocks` in the database) from the page's edge on, and only blocks
of which the tallies say that all marks occur there: what a page costs depends on what it shows, not on how many rows
there are or where the matches lie (docs/adr/0009).
"""

from __future__ import annotations

import json
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any, Generic, TypeVar

from django.db import connection

from annotation.models import JudgedState, Project, Tally
from annotation.search_terms import Search, excerpt

PAGE_ROWS = 50
COUNTED_UP_TO = 200
VALUES_SHOWN = 100  # the most frequent tasks, topics …, to choose from
TEXT_READ = 20_000  # characters in which a page looks for the hit that it shows
BLOCK_SHIFTS = (11, 13, 15, 17)  # as annotation_blocks in the database has them
TALLY_SHIFT = 13  # and as annotation_tallyblock is filled
NOT_SET = "-"
"""What a filter's value says for rows where nothing is said."""

RowT = TypeVar("RowT")


@dataclass(frozen=True)
class IndexState:
    """How far the index is. `behind_since`: when the oldest change happened that is not in it yet."""

    behind_since: datetime | None
    unread_prompts: int
    """Prompts of the site whose words cannot be searched yet; one more than COUNTED_UP_TO stands for more."""


def index_state() -> IndexState:
    """One query."""
    with connection.cursor() as cursor:
        cursor.execute(
            """
            SELECT (SELECT at FROM annotation_browsechange ORDER BY id LIMIT 1),
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


def blocks_down(high: int, low: int = 0) -> Iterator[tuple[int, int]]:
    """(level, number) of the blocks that hold the ids from `high` to `low`, growing as soon as a larger one fits."""
    level, at = 0, high
    while at >= low:
        block = at >> BLOCK_SHIFTS[level]
        yield level, block
        at = (block << BLOCK_SHIFTS[level]) - 1
        while level + 1 < len(BLOCK_SHIFTS) and (at + 1) % (1 << BLOCK_SHIFTS[level + 1]) == 0:
            level += 1


def blocks_up(low: int, high: int) -> Iterator[tuple[int, int]]:
    """The same the other way round, from `low` to `high`."""
    level, at = 0, low
    while at <= high:
        block = at >> BLOCK_SHIFTS[level]
        yield level, block
        at = (block + 1) << BLOCK_SHIFTS[level]
        while level + 1 < len(BLOCK_SHIFTS) and at % (1 << BLOCK_SHIFTS[level + 1]) == 0:
            level += 1


def _tallied_blocks(scope: Tally.Scope, project: Project, given: _Filter) -> list[int]:
    """The blocks of 2^TALLY_SHIFT ids in which each of the filter's marks occurs, ascending; one query."""
    # What is archived is not told apart any further.
    facets = [] if given.scope == "archived" else given.facets()
    wanted = [(given.scope, ""), *facets]
    with connection.cursor() as db:
        db.execute(
            """
            SELECT block FROM unnest(%s::text[], %s::text[]) AS wanted(dimension, value)
            JOIN annotation_tallyblock t USING (dimension, value)
            WHERE t.project_id = %s AND t.scope = %s AND t.count > 0
            GROUP BY block HAVING count(*) = %s ORDER BY block
            """,
            [[one for one, _ in wanted], [value for _, value in wanted], project.pk, scope, len(wanted)],
        )
        return [block for (block,) in db.fetchall()]


def _steps(tallied: list[int], cursor: Cursor, *, grow: bool) -> list[str]:
    """The blocks to read, one after the other, from the cursor on.

    grow: take larger and larger ones, for words, of which no tally says where they occur.
    """
    if not tallied:
        return []
    low, high = tallied[0] << TALLY_SHIFT, (tallied[-1] + 1 << TALLY_SHIFT) - 1
    if cursor.before is not None:
        low = max(low, cursor.before + 1)
    elif cursor.after is not None:
        high = min(high, cursor.after - 1)
    if grow:
        blocks = blocks_down(high, low) if cursor.before is None else blocks_up(low, high)
        return [f"@{level}:{block}" for level, block in blocks if _holds_any(tallied, level, block)]
    numbers = [block for block in tallied if low >> TALLY_SHIFT <= block <= high >> TALLY_SHIFT]
    if cursor.before is None:
        numbers.reverse()
    return [f"@{BLOCK_SHIFTS.index(TALLY_SHIFT)}:{block}" for block in numbers]


def _holds_any(tallied: list[int], level: int, block: int) -> bool:
    first = block << BLOCK_SHIFTS[level] >> TALLY_SHIFT
    last = ((block + 1 << BLOCK_SHIFTS[level]) - 1) >> TALLY_SHIFT
    at = bisect_left(tallied, first)
    return at < len(tallied) and tallied[at] <= last


# The blocks come in order, each is sorted, and the limit ends the loop: so the whole comes in order. The block stands
# before the marks and the words: GIN asks its keys in this order, so that the others begin where the block does.
_IDS = """
SELECT hit.id
FROM unnest(%(steps)s::text[]) AS step(block) CROSS JOIN LATERAL (
    SELECT e.{key} AS id FROM {table} e {join}
    WHERE e.marks @> ARRAY[step.block] AND e.marks @> %(marks)s::text[] {words} {edge}
    ORDER BY e.{key} {order}
) hit
LIMIT %(limit)s
"""
_WORDS_JOIN = "JOIN annotation_promptwords w ON w.prompt_id = e.prompt_id"
# The block narrows the words' own index, too.
_WORDS = "AND w.vector @@ quote_literal(step.block)::tsquery AND w.vector @@ %(words)s::tsquery"


@dataclass(frozen=True)
class _List:
    """What is listed: prompts or comparisons of a project that a filter and perhaps words let through."""

    scope: Tally.Scope
    project: Project
    given: _Filter
    search: Search | None = None

    def ids(self, cursor: Cursor, limit: int | None) -> list[int]:
        """The first ids from the cursor on, in the order in which it goes; two queries."""
        model = "prompt" if self.scope == Tally.Scope.PROMPT else "comparison"
        key = f"{model}_id"
        tallied = _tallied_blocks(self.scope, self.project, self.given)
        edge, order = "", "ASC" if cursor.before is not None else "DESC"
        if cursor != Cursor():
            edge = f"AND e.{key} {'>' if cursor.before is not None else '<'} %(edge)s"
        values = {
            "steps": _steps(tallied, cursor, grow=self.search is not None),
            "marks": self.given.marks(self.project),
            "edge": cursor.before if cursor.before is not None else cursor.after,
            # As a constant in the statement, so that the planner sees how rare the words are.
            "words": self.search.words if self.search else "",
            "limit": limit,
        }
        statement = _IDS.format(
            key=key,
            table=f"annotation_{model}entry",
            join=_WORDS_JOIN if self.search else "",
            words=_WORDS if self.search else "",
            edge=edge,
            order=order,
        )
        with connection.cursor() as db:
            db.execute(statement, values)
            return [pk for (pk,) in db.fetchall()]

    def page(self, cursor: Cursor) -> tuple[list[int], int | None, int | None]:
        """(ids, newer, older); two queries."""
        ids = self.ids(cursor, PAGE_ROWS + 1)
        has_more, ids = len(ids) > PAGE_ROWS, ids[:PAGE_ROWS]
        if cursor.before is not None:
            ids.reverse()
            newer, older = has_more, True
        else:
            newer, older = cursor.after is not None, has_more
        return ids, ids[0] if newer and ids else None, ids[-1] if older and ids else None

    def count(self) -> Count:
        """From the tally where one mark says it all, otherwise counted up to a limit; two queries at most."""
        facets = self.given.facets()
        if self.search is None and (not facets or (len(facets) == 1 and self.given.scope != "archived")):
            dimension, value = facets[0] if facets else (self.given.scope, "")
            rows = Tally.objects.filter(project=self.project, scope=self.scope, dimension=dimension, value=value)
            return Count(rows.values_list("count", flat=True).first() or 0)
        ids = self.ids(Cursor(), COUNTED_UP_TO + 1)
        return Count(min(len(ids), COUNTED_UP_TO), len(ids) > COUNTED_UP_TO)


def matching_ids(
    project: Project, given: PromptFilter, *, search: Search | None, after: int | None = None, limit: int | None
) -> list[int]:
    """Prompts that the filter lets through, newest first, below an id: for edits of everything that matches."""
    return _List(Tally.Scope.PROMPT, project, given, search).ids(Cursor(after=after), limit)


def prompt_ids_above(
    project: Project, given: PromptFilter, above: int, limit: int, *, search: Search | None
) -> list[int]:
    """The first prompts above an id, in order of id; two queries."""
    return _List(Tally.Scope.PROMPT, project, given, search).ids(Cursor(before=above), limit)


def comparison_ids_above(project: Project, given: ComparisonFilter, above: int, limit: int) -> list[int]:
    """The first comparisons above an id, in order of id; two queries."""
    return _List(Tally.Scope.COMPARISON, project, given).ids(Cursor(before=above), limit)


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


@dataclass(frozen=True)
class ProjectSize:
    """What a project holds, archived prompts left out; `judged`: comparisons with all the votes that they need."""

    prompts: int = 0
    comparisons: int = 0
    judged: int = 0


def project_sizes(projects: Iterable[Project]) -> dict[int, ProjectSize]:
    """By the project's id, as far as the index is; one query."""
    counted = {
        (Tally.Scope.PROMPT, "live", ""): "prompts",
        (Tally.Scope.COMPARISON, "all", ""): "comparisons",
        (Tally.Scope.COMPARISON, "state", str(JudgedState.JUDGED)): "judged",
    }
    sizes: dict[int, dict[str, int]] = {project.pk: {} for project in projects}
    tallies = Tally.objects.filter(
        project__in=sizes, dimension__in=["live", "all", "state"], value__in=["", str(JudgedState.JUDGED)]
    )
    for pk, *what, count in tallies.values_list("project", "scope", "dimension", "value", "count"):
        if name := counted.get(tuple(what)):  # type: ignore[arg-type]
            sizes[pk][name] = count
    return {pk: ProjectSize(**size) for pk, size in sizes.items()}


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

    @property
    def labels(self) -> list[str]:
        return [label for label in (self.task, self.lang, self.skill, self.topic) if label]


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


def prompt_page(project: Project, given: PromptFilter, cursor: Cursor, *, search: Search | None) -> Page[PromptRow]:
    """Three queries."""
    ids, newer, older = _List(Tally.Scope.PROMPT, project, given, search).page(cursor)
    statement = _PROMPT_ROWS.format(texts=_ALL_TEXTS if search else "'{}'::text[]")
    rows = {}
    with connection.cursor() as db:
        db.execute(statement, {"ids": ids, "chars": TEXT_READ if search else 400})
        for *columns, judged, last, texts in db.fetchall():
            values = [*columns, JudgedState(judged), excerpt([last, *texts], search.patterns if search else ())]
            rows[columns[0]] = PromptRow(*values)
    return Page([rows[pk] for pk in ids], newer, older)


def prompt_count(project: Project, given: PromptFilter, *, search: Search | None) -> Count:
    """Two queries at most."""
    return _List(Tally.Scope.PROMPT, project, given, search).count()


# ── Comparisons ──────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass
class ComparisonRow:
    """`votes` are the standing verdicts: (preference, count). `similarity` of the responses in percent, where the last
    search found it high."""

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
    similarity: int | None
    votes: list[tuple[str, int]]


_COMPARISON_ROWS = """
SELECT c.id, c.prompt_id, left(p.messages -> -1 ->> 'content', 400), c.lang, coalesce(b.name, ''),
       ARRAY[source_a.name, source_b.name], e.state, c.required_count, c.is_gold, c.is_withdrawn,
       ra.text_sha256 = rb.text_sha256, s.similarity,
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
LEFT JOIN annotation_similarresponses s ON s.comparison_id = c.id
WHERE c.id = ANY(%s)
"""
_PREFERENCES = ("a", "b", "tie", "neither", "ranked")


def comparison_rows(ids: Iterable[int]) -> list[ComparisonRow]:
    """In the order of the ids; one query."""
    ids = list(ids)
    rows = {}
    with connection.cursor() as db:
        db.execute(_COMPARISON_ROWS, [ids])
        for *columns, state, required, is_gold, is_withdrawn, is_equal, alike, votes in db.fetchall():
            given = sorted(json.loads(votes or "{}").items(), key=lambda vote: _PREFERENCES.index(vote[0]))
            values = [*columns, JudgedState(state), required, is_gold, is_withdrawn, is_equal, alike, given]
            rows[columns[0]] = ComparisonRow(*values)
    return [rows[pk] for pk in ids if pk in rows]


def comparison_page(project: Project, given: ComparisonFilter, cursor: Cursor) -> Page[ComparisonRow]:
    """Three queries."""
    ids, newer, older = _List(Tally.Scope.COMPARISON, project, given).page(cursor)
    return Page(comparison_rows(ids), newer, older)


def comparison_count(project: Project, given: ComparisonFilter) -> Count:
    """Two queries at most."""
    return _List(Tally.Scope.COMPARISON, project, given).count()
