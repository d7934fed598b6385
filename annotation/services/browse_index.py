"""Takes what changed into the entries, words and tallies that the browse pages read (docs/adr/0009)."""

from __future__ import annotations

import time

from django.db import connection, transaction
from django.db.backends.utils import CursorWrapper

from annotation.models import BrowseChange

INDEX_LOCK = 7_310_002  # any number that nothing else locks: one at a time, so that no tally is added to twice
ROWS_AT_ONCE = 20_000
WORDS_AT_ONCE = 300

# As many changes as name about that many rows: a vote names one, an import two thousand at a time.
_TAKE = """
DELETE FROM annotation_browsechange WHERE id IN (
    SELECT id FROM (
        SELECT id, sum(cardinality(ids)) OVER (ORDER BY id) - cardinality(ids) AS before
        FROM (SELECT id, ids FROM annotation_browsechange ORDER BY id LIMIT 2000) oldest
    ) counted
    WHERE before < %s
)
RETURNING kind, ids
"""

# Follows a `fresh` set of (id, project_id, marks, …): stores what differs and moves the tallies by the difference.
_STORE = """
, old AS MATERIALIZED (
    SELECT {key} AS id, project_id, marks FROM {table} WHERE {key} = ANY(%(ids)s)
), changed AS MATERIALIZED (
    SELECT fresh.* FROM fresh LEFT JOIN old USING (id) WHERE old.id IS NULL OR old.marks <> fresh.marks
), stored AS (
    INSERT INTO {table} ({key}, project_id, marks{more}) SELECT id, project_id, marks{more} FROM changed
    ON CONFLICT ({key}) DO UPDATE SET marks = excluded.marks{more_set}
), counted AS MATERIALIZED (
    SELECT project_id, split_part(mark, '=', 1) AS dimension,
           substr(mark, length(split_part(mark, '=', 1)) + 2) AS value, id >> 13 AS block, sum(step) AS step
    FROM (
        SELECT id, project_id, marks, 1 AS step FROM changed
        UNION ALL SELECT id, old.project_id, old.marks, -1 FROM old JOIN changed USING (id)
    ) steps, unnest(marks) AS mark
    -- Of what is archived only the number is kept.
    WHERE mark NOT LIKE '@%%' AND (mark = 'archived' OR NOT marks @> ARRAY['archived'])
    GROUP BY project_id, mark, block HAVING sum(step) <> 0
), tallied AS (
    INSERT INTO annotation_tally (project_id, scope, dimension, value, count)
    SELECT project_id, '{scope}', dimension, value, sum(step) FROM counted GROUP BY project_id, dimension, value
    ON CONFLICT (project_id, scope, dimension, value) DO UPDATE SET count = annotation_tally.count + excluded.count
), tallied_by_block AS (
    INSERT INTO annotation_tallyblock (project_id, scope, dimension, value, block, count)
    SELECT project_id, '{scope}', dimension, value, block, step FROM counted
    ON CONFLICT (project_id, scope, dimension, value, block)
    DO UPDATE SET count = annotation_tallyblock.count + excluded.count
)
"""

_COMPARISONS = (
    """
WITH fresh AS MATERIALIZED (
    SELECT c.id, c.project_id, c.prompt_id, judged.state,
           ARRAY['@p' || c.project_id, 'all', 'state=' || judged.state, 'lang=' || c.lang, 'skill=' || c.skill]
           || annotation_blocks(c.id)
           || CASE WHEN c.batch_id IS NULL THEN '{{}}'::text[] ELSE ARRAY['batch=' || c.batch_id] END
           || CASE WHEN s.comparison_id IS NULL THEN '{{}}'::text[] ELSE ARRAY['similar=yes'] END AS marks
    FROM annotation_comparison c LEFT JOIN annotation_similarresponses s ON s.comparison_id = c.id,
         LATERAL (
             SELECT count(*) AS votes FROM annotation_judgment j
             WHERE j.comparison_id = c.id AND j.superseded_at IS NULL AND j.round = 0
         ) given,
         LATERAL (
             SELECT CASE WHEN votes >= greatest(c.required_count, 1) THEN 3
                         WHEN votes > 0 THEN 2
                         WHEN c.is_withdrawn THEN 4
                         WHEN c.required_count = 0 THEN 0
                         ELSE 1 END AS state
         ) judged
    WHERE c.id = ANY(%(ids)s)
)
"""
    + _STORE
    + "SELECT DISTINCT prompt_id FROM changed"
).format(
    key="comparison_id",
    table="annotation_comparisonentry",
    scope="c",
    more=", state",
    more_set=", state = excluded.state",
)

_PROMPTS = (
    """
WITH fresh AS MATERIALIZED (
    SELECT p.id, p.project_id,
           ARRAY['@p' || p.project_id, CASE WHEN p.archived_at IS NULL THEN 'live' ELSE 'archived' END,
                 'task=' || p.task, 'lang=' || p.lang, 'skill=' || p.skill, 'topic=' || p.topic,
                 'state=' || CASE WHEN compared.waiting AND compared.begun THEN 2
                                  WHEN compared.waiting THEN 1
                                  WHEN compared.begun THEN 3 ELSE 0 END]
           || annotation_blocks(p.id)
           || coalesce(labels.tags, '{{}}') || coalesce(compared.batches, '{{}}') AS marks
    FROM annotation_prompt p
    LEFT JOIN LATERAL (
        SELECT array_agg(DISTINCT 'tag=' || tag ORDER BY 'tag=' || tag) AS tags FROM unnest(p.tags) tag
    ) labels ON true
    LEFT JOIN LATERAL (
        SELECT bool_or(e.state IN (1, 2)) AS waiting, bool_or(e.state IN (2, 3)) AS begun,
               array_agg(DISTINCT 'batch=' || c.batch_id ORDER BY 'batch=' || c.batch_id)
                   FILTER (WHERE c.batch_id IS NOT NULL) AS batches
        FROM annotation_comparison c JOIN annotation_comparisonentry e ON e.comparison_id = c.id
        WHERE c.prompt_id = p.id
    ) compared ON true
    WHERE p.id = ANY(%(ids)s)
)
"""
    + _STORE
    + "SELECT count(*) FROM changed"
).format(key="prompt_id", table="annotation_promptentry", scope="p", more="", more_set="")

_WORDS = """
WITH due AS MATERIALIZED (
    SELECT prompt_id FROM annotation_stalewords ORDER BY prompt_id LIMIT %(limit)s
), done AS (
    DELETE FROM annotation_stalewords s USING due WHERE s.prompt_id = due.prompt_id
), read AS MATERIALIZED (
    SELECT p.id, annotation_words(concat_ws(E'\\n',
               (SELECT string_agg(message ->> 'content', E'\\n') FROM jsonb_array_elements(p.messages) message),
               (SELECT string_agg(r.text, E'\\n' ORDER BY r.id) FROM annotation_response r WHERE r.prompt_id = p.id)
           ), p.lang) || array_to_tsvector(ARRAY['@p' || p.project_id] || annotation_blocks(p.id)) AS vector
    FROM due JOIN annotation_prompt p ON p.id = due.prompt_id
), stored AS (
    INSERT INTO annotation_promptwords (prompt_id, vector) SELECT id, vector FROM read
    ON CONFLICT (prompt_id) DO UPDATE SET vector = excluded.vector
)
SELECT count(*) FROM due
"""


def refresh_browse_index(*, seconds: float = 8.0) -> bool:
    """Take changes into the index for about that long; gives whether everything was taken in.

    Marks and tallies go before words, which take a hundred times as long. Gives up at once where somebody else is at
    it.
    """
    end = time.monotonic() + seconds
    for step in (_take_changes, _read_words):
        while (count := step()) != 0:
            if count is None or time.monotonic() > end:
                return False
    return True


def catch_up(*, patience_seconds: float = 600.0) -> bool:
    """Take in every change of marks that there is now, together with whoever else is at it; words are left.

    For work on all that matches a filter, which must not pass over rows because the index is behind. False where
    patience ran out.
    """
    end = time.monotonic() + patience_seconds
    while (count := _take_changes()) != 0:
        if time.monotonic() > end:
            return False
        if count is None:
            time.sleep(0.2)
    return True


def _is_ours(cursor: CursorWrapper) -> bool:
    cursor.execute("SELECT pg_try_advisory_xact_lock(%s)", [INDEX_LOCK])
    return bool(cursor.fetchone()[0])


def _take_changes() -> int | None:
    """How many changes were taken in; None where another process is at it."""
    with transaction.atomic(), connection.cursor() as cursor:
        if not _is_ours(cursor):
            return None
        cursor.execute(_TAKE, [ROWS_AT_ONCE])
        taken: dict[int, set[int]] = {kind: set() for kind in BrowseChange.Kind.values}
        count = 0
        for kind, ids in cursor.fetchall():
            taken[kind].update(ids)
            count += 1
        prompts = taken[BrowseChange.Kind.PROMPT]
        if comparisons := taken[BrowseChange.Kind.COMPARISON]:
            cursor.execute(_COMPARISONS, {"ids": sorted(comparisons)})
            prompts |= {prompt for (prompt,) in cursor.fetchall()}
        if prompts:
            cursor.execute(_PROMPTS, {"ids": sorted(prompts)})
        if words := taken[BrowseChange.Kind.WORDS]:
            cursor.execute(
                "INSERT INTO annotation_stalewords (prompt_id) SELECT unnest(%s::bigint[]) ON CONFLICT DO NOTHING",
                [sorted(words)],
            )
        return count


def _read_words() -> int | None:
    with transaction.atomic(), connection.cursor() as cursor:
        if not _is_ours(cursor):
            return None
        cursor.execute(_WORDS, {"limit": WORDS_AT_ONCE})
        return int(cursor.fetchone()[0])
