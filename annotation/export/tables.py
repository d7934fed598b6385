"""The queries behind the kinds of files that are tables (annotation/export/kinds.py)."""

from __future__ import annotations

from django.db import connection

from annotation.export.consensus import LIVE, PLACES
from annotation.export.kinds import Kind, Shape, Table
from annotation.models import Project

# Long texts are looked up last, row by row in order of id: a plain join would sort them all, through files.
_TEXT = "(SELECT r.text FROM annotation_response r WHERE r.id = {id})"
_HISTORY = """
    CROSS JOIN LATERAL (SELECT p."group", coalesce(r.messages, p.messages) AS prompt
                          FROM annotation_prompt p, annotation_response r
                         WHERE p.id = judged.prompt_id AND r.id = judged.history_id OFFSET 0) history
"""
_POINTS = "(SELECT s.points FROM response_scores s WHERE s.response_id = {id})"
_COMMON = (("id", Shape.INTEGER), ("group", Shape.TEXT), ("group_id", Shape.INTEGER), ("prompt", Shape.PROMPT))
_CHOSEN_ID = "CASE verdict WHEN 'a' THEN response_a_id ELSE response_b_id END"
_REJECTED_ID = "CASE verdict WHEN 'a' THEN response_b_id ELSE response_a_id END"

# How many pairs of its ranking each response won and lost.
_STANDINGS = """
    SELECT id, place, min(prompt_id) AS prompt_id, min(history_id) AS history_id, min(response_id) AS response_id,
           count(*) FILTER (WHERE verdict = mine) AS won, count(*) FILTER (WHERE verdict = other) AS lost,
           bool_and(verdict = 'neither') AS is_unacceptable
      FROM (SELECT consensus.*, position_a AS place, response_a_id AS response_id, 'a' AS mine, 'b' AS other
              FROM consensus WHERE origin = 'ranking'
         UNION ALL
            SELECT consensus.*, position_b, response_b_id, 'b', 'a' FROM consensus WHERE origin = 'ranking') sides
     GROUP BY id, place
"""
# Of a pair both, of a ranking those that won more than they lost or lost more than they won; what people wrote is
# desirable.
_KTO_SINGLES = f"""
    SELECT id, part, side AS place, prompt_id, history_id,
           CASE side WHEN 0 THEN response_a_id ELSE response_b_id END AS response_id,
           verdict = CASE side WHEN 0 THEN 'a' ELSE 'b' END AS label
      FROM consensus CROSS JOIN (VALUES (0), (1)) sides (side)
     WHERE origin = 'votes' AND verdict IN ('a', 'b', 'neither')
 UNION ALL
    SELECT id, min(part), 0, prompt_id, history_id, response_a_id, true
      FROM consensus WHERE origin IN ('edit', 'rewrite') AND verdict = 'a'
     GROUP BY id, part / 2, prompt_id, history_id, response_a_id
 UNION ALL
    SELECT id, place, 0, prompt_id, history_id, response_id, won > lost
      FROM ({_STANDINGS}) standings WHERE won <> lost OR is_unacceptable
"""
# What was edited is learnt from in its edited form only; of a ranking, what lost to nothing.
_SFT_SINGLES = f"""
    SELECT id, part, 0 AS place, prompt_id, history_id, {_CHOSEN_ID} AS response_id
      FROM consensus WHERE origin = 'votes' AND verdict IN ('a', 'b') AND NOT is_edited
 UNION ALL
    SELECT id, part, 0, prompt_id, history_id, response_a_id
      FROM consensus WHERE origin IN ('edit', 'rewrite') AND verdict = 'a'
 UNION ALL
    SELECT id, place, 0, prompt_id, history_id, response_id FROM ({_STANDINGS}) standings WHERE won > 0 AND lost = 0
"""
_SFT_ONCE = f"""
    SELECT DISTINCT ON (single.prompt_id, r.text_sha256) single.*
      FROM ({_SFT_SINGLES}) single JOIN annotation_response r ON r.id = single.response_id
     ORDER BY single.prompt_id, r.text_sha256, single.id, single.part, single.place
"""


def make_table(kind: Kind, project: Project, *, humans_only: bool) -> Table:
    """The rows of a kind, from the consensus, which must be there. Makes further temporary tables of its own."""
    if kind == Kind.RANKING:
        return _rankings(project, humans_only=humans_only)
    aspects = make_scores(project, humans_only=humans_only)
    if kind in (Kind.DPO, Kind.REWARD):
        return _pairs(aspects)
    return _singles(kind, aspects)


def _pairs(aspects: tuple[str, ...]) -> Table:
    # `strength` is 0 where nobody graded, and always has decimals: readers of JSON Lines, the `datasets` library among
    # them, take a column's type from the file's first rows and refuse the file where it later turns out otherwise.
    scores = f", {_POINTS.format(id=_CHOSEN_ID)}, {_POINTS.format(id=_REJECTED_ID)}" if aspects else ""
    query = f"""
        SELECT id, "group", id, prompt, {_TEXT.format(id=_CHOSEN_ID)}, {_TEXT.format(id=_REJECTED_ID)},
               coalesce(abs(mean_strength), 0)::float8,
               CASE verdict WHEN 'a' THEN p_a ELSE round((1 - p_a)::numeric, 6)::float8 END,
               CASE verdict WHEN 'a' THEN a ELSE b END, CASE verdict WHEN 'a' THEN b ELSE a END, tie, neither{scores}
          FROM (SELECT * FROM consensus WHERE verdict IN ('a', 'b') AND response_b_id IS NOT NULL
                 ORDER BY id, part) judged {_HISTORY} ORDER BY id, part
    """
    columns = [
        *_COMMON,
        ("chosen", Shape.SAID),
        ("rejected", Shape.SAID),
        ("strength", Shape.FLOAT),
        ("p_chosen", Shape.FLOAT),
        ("votes", Shape.VOTES),
    ]
    if aspects:
        columns += [("chosen_scores", Shape.SCORES), ("rejected_scores", Shape.SCORES)]
    return Table(tuple(columns), query, aspects)


def _singles(kind: Kind, aspects: tuple[str, ...]) -> Table:
    singles, label = (_KTO_SINGLES, ", label") if kind == Kind.KTO else (_SFT_ONCE, "")
    scores = f", {_POINTS.format(id='judged.response_id')}" if aspects else ""
    query = f"""
        SELECT id, "group", id, prompt, {_TEXT.format(id="judged.response_id")}{label}{scores}
          FROM (SELECT * FROM ({singles}) singles ORDER BY id, part, place) judged {_HISTORY} ORDER BY id, part, place
    """
    columns = [*_COMMON, ("completion", Shape.SAID)]
    if label:
        columns.append(("label", Shape.BOOLEAN))
    if aspects:
        columns.append(("scores", Shape.SCORES))
    return Table(tuple(columns), query, aspects)


# ── Rankings ─────────────────────────────────────────────────────────────────────────────────────────────────────

# The consensus of the ranks is the order of their means, equal means are ties; or what a reviewer settled on.
_RANKED = """
CREATE TEMPORARY TABLE ranked ON COMMIT DROP AS
WITH said AS (
    SELECT j.comparison_id, j.id, j.ranking {live} AND c.response_count > 2 AND j.preference = 'ranked'
), means AS (
    SELECT comparison_id, place, round(avg(ranking[place + 1]), 6)::float8 AS mean_rank
      FROM said CROSS JOIN LATERAL generate_series(0, cardinality(ranking) - 1) place GROUP BY comparison_id, place
), settled AS (
    SELECT d.comparison_id, d.preference, d.ranking
      FROM annotation_adjudication d JOIN annotation_comparison c ON c.id = d.comparison_id
     WHERE d.superseded_at IS NULL AND c.project_id = %(project)s AND c.response_count > 2
), pairs AS (
    SELECT id, min(prompt_id) AS prompt_id, min(history_id) AS history_id,
           CASE WHEN bool_or(verdict = 'gold') THEN 'gold' WHEN bool_or(verdict = 'withdrawn') THEN 'withdrawn'
                WHEN bool_or(verdict = 'different_histories') THEN 'different_histories'
                WHEN coalesce(min(settled.preference) = 'neither', 2 * max(neither) > max(votes)) THEN 'neither'
           END AS reason
      FROM consensus LEFT JOIN settled ON settled.comparison_id = id WHERE origin = 'ranking' GROUP BY id
), consented AS (
    SELECT places.comparison_id, array_agg(response_id ORDER BY position) AS response_ids,
           array_agg(coalesce(settled.ranking[position + 1], mean_rank) ORDER BY position) AS mean_ranks,
           array_agg(coalesce(settled.ranking[position + 1], rank) ORDER BY position) AS ranks
      FROM ({places}) places
      LEFT JOIN (SELECT means.*, dense_rank() OVER (PARTITION BY comparison_id ORDER BY mean_rank)::int AS rank
                   FROM means) m ON m.comparison_id = places.comparison_id AND place = position
      LEFT JOIN settled ON settled.comparison_id = places.comparison_id
     WHERE places.comparison_id IN (SELECT id FROM pairs)
     GROUP BY places.comparison_id
)
SELECT pairs.id, prompt_id, history_id, response_ids, mean_ranks, ranks,
       coalesce((SELECT jsonb_agg(to_jsonb(said.ranking) ORDER BY said.id) FROM said
                  WHERE said.comparison_id = pairs.id), '[]') AS judgments,
       CASE WHEN reason IS NULL AND 1 = ALL (ranks) THEN 'tie' ELSE coalesce(reason, 'ranked') END AS verdict
  FROM pairs LEFT JOIN consented ON consented.comparison_id = pairs.id
"""


def _rankings(project: Project, *, humans_only: bool) -> Table:
    with connection.cursor() as cursor:
        cursor.execute("DROP TABLE IF EXISTS pg_temp.ranked")
        cursor.execute(_RANKED.format(live=LIVE, places=PLACES), {"project": project.pk, "humans_only": humans_only})
    query = f"""
        SELECT id, "group", id, prompt,
               (SELECT array_agg(r.text ORDER BY listed.place)
                  FROM unnest(response_ids) WITH ORDINALITY listed (response_id, place)
                  JOIN annotation_response r ON r.id = listed.response_id),
               ranks, mean_ranks, judgments
          FROM (SELECT * FROM ranked WHERE verdict = 'ranked' ORDER BY id) judged {_HISTORY} ORDER BY id
    """
    columns = (
        *_COMMON,
        ("responses", Shape.TEXTS),
        ("ranks", Shape.INTEGERS),
        ("mean_ranks", Shape.FLOATS),
        ("judgments", Shape.INTEGER_LISTS),
    )
    return Table(columns, query)


# ── Scores ───────────────────────────────────────────────────────────────────────────────────────────────────────

_SAID_OF_RESPONSES = """
    SELECT r.response_id, r.aspect, r.value
      FROM annotation_rating r
      JOIN annotation_annotator n ON n.id = r.annotator_id
      JOIN annotation_response s ON s.id = r.response_id
      JOIN annotation_prompt p ON p.id = s.prompt_id
     WHERE p.project_id = %(project)s AND r.value IS NOT NULL AND (n.is_human OR NOT %(humans_only)s)
 UNION ALL
    SELECT places.response_id, aspects.aspect, (aspects.points ->> places.position)::float8
      FROM (SELECT j.comparison_id, j.ratings, c.response_a_id, c.response_b_id, c.response_count
            {live} AND NOT c.is_gold AND j.ratings <> '{{}}') j
     CROSS JOIN LATERAL jsonb_each(j.ratings) aspects (aspect, points)
     CROSS JOIN LATERAL (
        VALUES (0, j.response_a_id), (1, j.response_b_id)
     UNION ALL
        SELECT f.position, f.response_id FROM annotation_furtherresponse f
         WHERE f.comparison_id = j.comparison_id AND j.response_count > 2) places (position, response_id)
     WHERE aspects.points ->> places.position IS NOT NULL
"""
_SCORES = """
CREATE TEMPORARY TABLE response_scores ON COMMIT DROP AS
WITH means AS (
    SELECT response_id, aspect, round(avg(value)::numeric, 6)::float8 AS value FROM ({said}) said
     GROUP BY response_id, aspect
)
SELECT responses.response_id, array_agg(means.value ORDER BY aspects.aspect) AS points,
       array_agg(aspects.aspect ORDER BY aspects.aspect) AS aspects
  FROM (SELECT DISTINCT response_id FROM means) responses CROSS JOIN (SELECT DISTINCT aspect FROM means) aspects
  LEFT JOIN means ON means.response_id = responses.response_id AND means.aspect = aspects.aspect
 GROUP BY responses.response_id
"""
_HAS_SCORES = """
SELECT EXISTS (SELECT 1 FROM annotation_judgment j JOIN annotation_comparison c ON c.id = j.comparison_id
                WHERE c.project_id = %(project)s AND j.ratings <> '{}')
    OR EXISTS (SELECT 1 FROM annotation_rating r JOIN annotation_response s ON s.id = r.response_id
                 JOIN annotation_prompt p ON p.id = s.prompt_id WHERE p.project_id = %(project)s)
"""


def make_scores(project: Project, *, humans_only: bool) -> tuple[str, ...]:
    """Make the temporary table `response_scores`, each response's mean in each aspect, and name the aspects in order.

    From the scores within judgments and from ratings on their own; no table and no aspects where nobody gave any.
    """
    values = {"project": project.pk, "humans_only": humans_only}
    with connection.cursor() as cursor:
        cursor.execute("DROP TABLE IF EXISTS pg_temp.response_scores")
        cursor.execute(_HAS_SCORES, values)
        if not cursor.fetchone()[0]:
            return ()
        cursor.execute(_SCORES.format(said=_SAID_OF_RESPONSES.format(live=LIVE)), values)
        cursor.execute("SELECT aspects FROM response_scores LIMIT 1")
        found = cursor.fetchone()
        if found is None:
            return ()
        cursor.execute("CREATE INDEX ON pg_temp.response_scores (response_id)")
        cursor.execute("ANALYZE pg_temp.response_scores")
        return tuple(found[0])
