"""The consensus: one row for each judged pair of responses, with its verdict or the reason why it has none.

It is defined once, in SQL, and everything that needs it reads that temporary table: exported files, the rows that
data sets are made of, and the counts. The verdict of a pair is the answer (a, b, tie or neither) that got more live
judgments than each other answer, or what a reviewer settled on. A ranking of n responses is n(n−1)/2 pairs; a
judgment votes on each of them.

Beside the judged pairs stand what people wrote: an edited response is better than the one it was made of and than the
one that lost to it, and what somebody wrote for a prompt without an acceptable response is better than what it was
made of. Pairs that give no training rows are counted, never silently left out; docs/data.md lists the reasons.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from django.db import connection
from django.db.backends.utils import CursorWrapper
from django.utils.translation import gettext as _

from annotation.errors import DomainError
from annotation.models import Project


class ExportError(DomainError):
    """A file that cannot be written; the sentence says why and what to do."""


@dataclass(frozen=True, slots=True)
class Rules:
    """What is left out of the training rows besides what can give none. Each rule has its reason in the counts."""

    max_spread: float | None = None
    """`spread`: people's strengths on the pair lie further apart than this."""
    min_strength: float = 0.0
    """`weak`: the mean strength is closer to 0 than this; what nobody graded stays."""
    near_identical: bool = False
    """`near_identical`: the texts agree in 95 % of their characters."""
    unfinished: bool = False
    """`unfinished`: a response was cut off at its length limit, or is blank."""
    names_model: bool = False
    """`names_model`: a response says who wrote it: its source's name, or "I am …, a model by …"."""


NEAR_IDENTICAL = 0.95
_AXIS_NAME = re.compile(r"[a-z][a-z0-9_]{0,39}")

# Who a model says it is. Only whole phrases: a story may be about llamas, and an answer about OpenAI.
_MAKERS = (
    "openai|anthropic|google|deepmind|meta|microsoft|mistral|alibaba|tencent|baidu|zhipu|deepseek|moonshot|minimax"
    "|baichuan|lmsys|hugging ?face|cohere|nvidia|xai|01\\.ai"
    "|阿里\\S{0,3}|百度|腾讯|智谱\\S{0,2}|月之暗面|深度求索|百川\\S{0,2}"
)
_MODELS = (
    "chatgpt|gpt-?[0-9o][\\w.-]*|claude|gemini|gemma|bard|llama[\\w.-]*|mistral|mixtral|qwen[\\w.-]*|deepseek[\\w.-]*"
    "|kimi|glm[\\w.-]*|chatglm|ernie|yi-[\\w.-]+|vicuna|alpaca|smollm[\\w.-]*|phi-?[0-9]\\S*|copilot|grok"
    "|通义千问|文心一言|混元|豆包"
)
_IDENTITY = (
    f"(i am|i'm|i’m|my name is|this is|我是|我叫|作为)\\s*(an? |the )?({_MODELS})\\M"
    f"|(developed|created|trained|made|built|designed) by (the )?(team at )?({_MAKERS})\\M"
    f"|由\\s*({_MAKERS})\\s*(公司)?\\s*(开发|训练|研发|创建|推出)"
)

# Live votes only. Repeats measure one person against themselves, votes on gold items a person against what is known:
# they never decide anything. Gold comparisons keep theirs here so that they can be counted.
LIVE = """
      FROM annotation_judgment j
      JOIN annotation_annotator n ON n.id = j.annotator_id
      JOIN annotation_comparison c ON c.id = j.comparison_id
     WHERE j.superseded_at IS NULL AND j.round = 0 AND c.project_id = %(project)s
       AND (n.is_human OR NOT %(humans_only)s)
       AND (c.is_gold OR j.assignment_id IS NULL OR j.assignment_id NOT IN (
            SELECT s.id FROM annotation_assignment s WHERE s.kind IN ('gold', 'qualification')))
"""
_VERDICT = """
    CASE
        WHEN is_gold THEN 'gold'
        WHEN is_withdrawn THEN 'withdrawn'
        WHEN histories_differ THEN 'different_histories'
        WHEN answer = 'tie' THEN 'tie'
        WHEN answer IS NULL THEN 'no_majority'
        {text_rules}
        WHEN answer = 'neither' THEN 'neither'
        WHEN texts_are_equal THEN 'identical_responses'
        {strength_rules}
        WHEN btrim(CASE answer WHEN 'a' THEN a_text ELSE b_text END, E' \\t\\n\\r\\f\\v') = '' THEN 'empty'
        ELSE answer
    END
"""
# The answer that got more votes than each other one.
_MAJORITY = """
    CASE WHEN a > greatest(b, tie, neither) THEN 'a' WHEN b > greatest(a, tie, neither) THEN 'b'
         WHEN tie > greatest(a, b, neither) THEN 'tie' WHEN neither > greatest(a, b, tie) THEN 'neither' END
"""
_SHARE = "round((a + tie / 2.0) / nullif(a + b + tie, 0), 6)::float8"
_COLUMNS = """id, part, origin, prompt_id, history_id, response_a_id, response_b_id, position_a, position_b,
       a, b, tie, neither, votes, mean_strength, p_a, verdict, is_edited"""
_CREATE = """
CREATE TEMPORARY TABLE consensus (
    id bigint, part integer, origin text, prompt_id bigint, history_id bigint, response_a_id bigint,
    response_b_id bigint, position_a smallint, position_b smallint, a integer, b integer, tie integer,
    neither integer, votes integer, mean_strength float8, p_a float8, verdict text, is_edited boolean
) ON COMMIT DROP
"""

_PAIRS = """
INSERT INTO consensus ({columns})
SELECT id, 0, 'votes', prompt_id, response_a_id, response_a_id, response_b_id, 0, 1, a, b, tie, neither,
       a + b + tie + neither, mean_strength, p_a, {verdict}, false
  FROM (
    SELECT c.id, c.prompt_id, c.response_a_id, c.response_b_id, v.*, c.is_gold,
           c.is_withdrawn AND NOT c.withdrawn_with_prompt AS is_withdrawn,
           ra.messages IS DISTINCT FROM rb.messages AS histories_differ,
           ra.text_sha256 = rb.text_sha256 AS texts_are_equal,
           ra.text AS a_text, rb.text AS b_text, ra.id AS a_id, rb.id AS b_id
      FROM ({votes}) v
      JOIN annotation_comparison c ON c.id = v.comparison_id
      JOIN annotation_response ra ON ra.id = c.response_a_id
      JOIN annotation_response rb ON rb.id = c.response_b_id
     WHERE c.response_count = 2
  ) judged
"""
# A reviewer's last word stands instead of the counts.
_VOTES = """
    SELECT coalesce(counted.comparison_id, settled.comparison_id) AS comparison_id,
           coalesce(a, 0) AS a, coalesce(b, 0) AS b, coalesce(tie, 0) AS tie, coalesce(neither, 0) AS neither, spread,
           CASE WHEN settled.comparison_id IS NULL THEN mean_strength ELSE settled.strength END AS mean_strength,
           coalesce(settled.preference, {majority}) AS answer,
           CASE settled.preference WHEN 'a' THEN 1.0 WHEN 'b' THEN 0.0 WHEN 'tie' THEN 0.5 ELSE {share} END AS p_a
      FROM (SELECT j.comparison_id,
                   count(*) FILTER (WHERE j.preference = 'a') AS a,
                   count(*) FILTER (WHERE j.preference = 'b') AS b,
                   count(*) FILTER (WHERE j.preference = 'tie') AS tie,
                   count(*) FILTER (WHERE j.preference = 'neither') AS neither,
                   round(avg(j.strength), 6)::float8 AS mean_strength,
                   max(j.strength) - min(j.strength) AS spread
            {live} GROUP BY j.comparison_id) counted
      FULL JOIN (SELECT d.comparison_id, d.preference, d.strength
                   FROM annotation_adjudication d JOIN annotation_comparison c ON c.id = d.comparison_id
                  WHERE d.superseded_at IS NULL AND c.project_id = %(project)s) settled
        ON settled.comparison_id = counted.comparison_id
"""
# A separate question about the same pairs, on the seven steps; reviewers settle the first question only.
_AXIS_VOTES = """
    SELECT comparison_id, a, b, tie, 0 AS neither, spread, mean_strength, {majority} AS answer, {share} AS p_a
      FROM (SELECT j.comparison_id, 0 AS neither,
                   count(*) FILTER (WHERE (j.axes ->> '{axis}')::int < 0) AS a,
                   count(*) FILTER (WHERE (j.axes ->> '{axis}')::int > 0) AS b,
                   count(*) FILTER (WHERE (j.axes ->> '{axis}')::int = 0) AS tie,
                   round(avg((j.axes ->> '{axis}')::int), 6)::float8 AS mean_strength,
                   max((j.axes ->> '{axis}')::int) - min((j.axes ->> '{axis}')::int) AS spread
            {live} AND j.axes ->> '{axis}' IS NOT NULL GROUP BY j.comparison_id) counted
"""

_RANKINGS = """
INSERT INTO consensus ({columns})
SELECT id, 9 * position_a + position_b, 'ranking', prompt_id, a_id, a_id, b_id, position_a, position_b, a, b, tie,
       neither, a + b + tie + neither, NULL, p_a, {verdict}, false
  FROM (
    SELECT c.id, c.prompt_id, voted.*, coalesce(settled, {majority}) AS answer,
           CASE settled WHEN 'a' THEN 1.0 WHEN 'b' THEN 0.0 WHEN 'tie' THEN 0.5 ELSE {share} END AS p_a, c.is_gold,
           c.is_withdrawn AND NOT c.withdrawn_with_prompt AS is_withdrawn, NULL::int AS spread,
           NULL::float8 AS mean_strength, ra.messages IS DISTINCT FROM rb.messages AS histories_differ,
           ra.text_sha256 = rb.text_sha256 AS texts_are_equal, ra.text AS a_text, rb.text AS b_text,
           ra.id AS a_id, rb.id AS b_id
      FROM (SELECT said.comparison_id, i AS position_a, k AS position_b,
                   count(*) FILTER (WHERE NOT is_last_word AND ranking[i + 1] < ranking[k + 1]) AS a,
                   count(*) FILTER (WHERE NOT is_last_word AND ranking[i + 1] > ranking[k + 1]) AS b,
                   count(*) FILTER (WHERE NOT is_last_word AND ranking[i + 1] = ranking[k + 1]) AS tie,
                   count(*) FILTER (WHERE NOT is_last_word AND preference = 'neither') AS neither,
                   max(CASE WHEN NOT is_last_word THEN NULL WHEN preference = 'neither' THEN 'neither'
                            WHEN ranking[i + 1] < ranking[k + 1] THEN 'a' WHEN ranking[i + 1] > ranking[k + 1] THEN 'b'
                            ELSE 'tie' END) AS settled
              FROM (SELECT j.comparison_id, j.preference, j.ranking, c.response_count, false AS is_last_word
                    {live} AND c.response_count > 2
                 UNION ALL
                    SELECT d.comparison_id, d.preference, d.ranking, c.response_count, true
                      FROM annotation_adjudication d JOIN annotation_comparison c ON c.id = d.comparison_id
                     WHERE d.superseded_at IS NULL AND c.project_id = %(project)s AND c.response_count > 2) said
             CROSS JOIN LATERAL generate_series(0, response_count - 2) i
             CROSS JOIN LATERAL generate_series(i + 1, response_count - 1) k
             GROUP BY said.comparison_id, i, k) voted
      JOIN annotation_comparison c ON c.id = voted.comparison_id
      JOIN ({places}) pa ON pa.comparison_id = c.id AND pa.position = position_a
      JOIN ({places}) pb ON pb.comparison_id = c.id AND pb.position = position_b
      JOIN annotation_response ra ON ra.id = pa.response_id
      JOIN annotation_response rb ON rb.id = pb.response_id
  ) judged
"""
PLACES = """
    SELECT id AS comparison_id, 0 AS position, response_a_id AS response_id FROM annotation_comparison
     WHERE project_id = %(project)s AND response_count > 2
 UNION ALL
    SELECT id, 1, response_b_id FROM annotation_comparison WHERE project_id = %(project)s AND response_count > 2
 UNION ALL
    SELECT f.comparison_id, f.position, f.response_id FROM annotation_furtherresponse f
      JOIN annotation_comparison c ON c.id = f.comparison_id WHERE c.project_id = %(project)s
"""

# Edited > chosen and edited > rejected, where the editor's choice is the consensus. Texts that came out equal to what
# they should be better than teach nothing.
_EDITS = """
INSERT INTO consensus ({columns})
SELECT k.id, 1000 + 2 * (dense_rank() OVER (PARTITION BY k.id ORDER BY e.id))::int + beaten.rank, 'edit',
       k.prompt_id, k.history_id, e.edited_id, beaten.response_id, 0, 1, 1, 0, 0, 0, 0, NULL, 1.0,
       CASE WHEN NOT is_chosen THEN 'edit_of_not_chosen'
            WHEN btrim(edited.text, E' \\t\\n\\r\\f\\v') = '' THEN 'empty'
            WHEN edited.text_sha256 = loser.text_sha256 THEN 'identical_responses' ELSE 'a' END, false
  FROM (SELECT j.id AS judgment_id {live}) live
  JOIN annotation_edit e ON e.judgment_id = live.judgment_id
  JOIN annotation_judgment j ON j.id = e.judgment_id
  JOIN consensus k ON k.id = j.comparison_id AND k.origin = 'votes' AND k.verdict NOT IN ('gold', 'withdrawn')
 CROSS JOIN LATERAL (SELECT e.original_id = CASE k.verdict WHEN 'a' THEN k.response_a_id WHEN 'b' THEN k.response_b_id
                                            END IS TRUE AS is_chosen) choice
 CROSS JOIN LATERAL (VALUES (0, e.original_id), (1, CASE WHEN is_chosen THEN
     CASE k.verdict WHEN 'a' THEN k.response_b_id ELSE k.response_a_id END END)) beaten (rank, response_id)
  JOIN annotation_response edited ON edited.id = e.edited_id
  JOIN annotation_response loser ON loser.id = beaten.response_id
"""
_MARK_EDITED = """
UPDATE consensus SET is_edited = true
 WHERE origin = 'votes' AND id IN (SELECT id FROM consensus WHERE origin = 'edit' AND verdict = 'a')
"""
# What was written where no response would do; better than what it was made of, if it was made of one.
_REWRITES = """
INSERT INTO consensus ({columns})
SELECT c.id, 2000, 'rewrite', c.prompt_id, coalesce(t.original_id, c.response_a_id), t.written_id, t.original_id, 0, 1,
       1, 0, 0, 0, 0, NULL, 1.0,
       CASE WHEN btrim(written.text, E' \\t\\n\\r\\f\\v') = '' THEN 'empty'
            WHEN written.text_sha256 = original.text_sha256 THEN 'identical_responses' ELSE 'a' END, false
  FROM annotation_rewritetask t
  JOIN annotation_comparison c ON c.id = t.comparison_id
  JOIN annotation_response written ON written.id = t.written_id
  LEFT JOIN annotation_response original ON original.id = t.original_id
 WHERE t.status = 'done' AND t.project_id = %(project)s AND NOT c.is_gold
   AND NOT (c.is_withdrawn AND NOT c.withdrawn_with_prompt)
"""
_NAMES = """
    EXISTS (SELECT 1 FROM annotation_response r JOIN annotation_responsesource s ON s.id = r.source_id
             WHERE r.id IN (a_id, b_id)
               AND (r.text ~* %(identity)s
                    OR length(s.name) > 3 AND position(lower(regexp_replace(s.name, ' \\(imported\\)$', ''))
                                                       IN lower(r.text)) > 0))
"""
_UNFINISHED = """
    EXISTS (SELECT 1 FROM annotation_response r WHERE r.id IN (a_id, b_id)
               AND (r.finish_reason = 'length' OR btrim(r.text, E' \\t\\n\\r\\f\\v') = ''))
"""


def make_consensus(project: Project, *, humans_only: bool, rules: Rules | None = None, axis: str = "") -> None:
    """Make the temporary table `consensus`, which lives as long as the transaction. Call inside one.

    axis: judge by this separate question instead of the main one; rankings, edits and rewrites answer only that one.
    Raises ExportError where the project asks no such question.
    """
    rules = rules or Rules()
    values: dict[str, Any] = {"project": project.pk, "humans_only": humans_only, "identity": _IDENTITY}
    values |= {"max_spread": rules.max_spread, "min_strength": rules.min_strength}
    verdict = _VERDICT.format(text_rules=_text_rules(rules), strength_rules=_strength_rules(rules))
    parts = {
        "columns": _COLUMNS,
        "verdict": verdict,
        "live": LIVE,
        "majority": _MAJORITY,
        "share": _SHARE,
        "places": PLACES,
    }
    with connection.cursor() as cursor:
        if axis:
            _check_axis(cursor, project, axis)
        cursor.execute("DROP TABLE IF EXISTS pg_temp.consensus")
        cursor.execute(_CREATE)
        votes = _AXIS_VOTES.format(**parts, axis=axis) if axis else _VOTES.format(**parts)
        cursor.execute(_PAIRS.format(**parts, votes=votes), values)
        if not axis:
            if _has(cursor, "annotation_comparison WHERE project_id = %s AND response_count > 2", project):
                cursor.execute(_RANKINGS.format(**parts), values)
            if _has(
                cursor,
                "annotation_edit e JOIN annotation_response r ON r.id = e.edited_id"
                " JOIN annotation_prompt p ON p.id = r.prompt_id WHERE p.project_id = %s",
                project,
            ):
                cursor.execute(_EDITS.format(**parts), values)
                cursor.execute(_MARK_EDITED)
            cursor.execute(_REWRITES.format(**parts), values)
        if rules.near_identical:
            _drop_near_identical(cursor)
        cursor.execute("ANALYZE consensus")


def _has(cursor: CursorWrapper, what: str, project: Project) -> bool:
    cursor.execute(f"SELECT EXISTS (SELECT 1 FROM {what})", [project.pk])
    return cursor.fetchone()[0]


def _check_axis(cursor: CursorWrapper, project: Project, axis: str) -> None:
    if _AXIS_NAME.fullmatch(axis) and _has(
        cursor,
        "annotation_judgment j JOIN annotation_comparison c ON c.id = j.comparison_id"
        f" WHERE c.project_id = %s AND jsonb_exists(j.axes, '{axis}')",
        project,
    ):
        return
    raise ExportError(
        _("nobody judged by the axis '%(axis)s' in %(project)s; leave it out or name one of its protocol")
        % {"axis": axis, "project": project.name}
    )


def _text_rules(rules: Rules) -> str:
    found = []
    if rules.unfinished:
        found.append(f"WHEN {_UNFINISHED} THEN 'unfinished'")
    if rules.names_model:
        found.append(f"WHEN {_NAMES} THEN 'names_model'")
    return "\n".join(found)


def _strength_rules(rules: Rules) -> str:
    found = []
    if rules.max_spread is not None:
        found.append("WHEN spread > %(max_spread)s THEN 'spread'")
    if rules.min_strength:
        found.append("WHEN abs(mean_strength) < %(min_strength)s THEN 'weak'")
    return "\n".join(found)


def _drop_near_identical(cursor: CursorWrapper) -> None:
    """Marks usable pairs whose texts differ in a few characters. Texts of unlike lengths need not be read."""
    from rapidfuzz.distance import Indel

    similar = []
    with connection.chunked_cursor() as texts:
        texts.execute(
            f"""
            SELECT k.id, k.part, ra.text, rb.text
              FROM consensus k
              JOIN annotation_response ra ON ra.id = k.response_a_id
              JOIN annotation_response rb ON rb.id = k.response_b_id
             WHERE k.verdict IN ('a', 'b') AND k.origin IN ('votes', 'ranking')
               AND least(length(ra.text), length(rb.text))
                   >= greatest(length(ra.text), length(rb.text)) * {2 * NEAR_IDENTICAL - 1}
            """
        )
        while rows := texts.fetchmany(200):
            for pk, part, a, b in rows:
                if Indel.normalized_similarity(a[:20_000], b[:20_000], score_cutoff=NEAR_IDENTICAL) >= NEAR_IDENTICAL:
                    similar.append((pk, part))
    for start in range(0, len(similar), 10_000):
        ids, parts = zip(*similar[start : start + 10_000], strict=True)
        cursor.execute(
            "UPDATE consensus k SET verdict = 'near_identical'"
            " FROM unnest(%s::bigint[], %s::int[]) s (id, part) WHERE k.id = s.id AND k.part = s.part",
            [list(ids), list(parts)],
        )
