"""Files of records: everything that was said, in the touchstone format, and typed feedback from conversations."""

from __future__ import annotations

import contextlib
import json
from io import BufferedIOBase
from typing import IO

from django.db import connection

from annotation.export.copying import copy_lines
from annotation.export.kinds import Kind
from annotation.feedback import fb_bench_items, feedback_records
from annotation.models import Project

# One record for each comparison that somebody judged or settled. Superseded verdicts are history; gold, repeats and
# late votes are here, and say so.
_COMPARISONS = """
    SELECT coalesce(nullif(c.external_id, ''), 'comparison-' || c.id) AS id, p."group", p.lang, p.tags,
           p.messages -> -1 ->> 'content' AS prompt, p.messages,
           (SELECT json_agg(json_strip_nulls(json_build_object('model', s.name, 'text', r.text,
                                                               'messages', r.messages)) ORDER BY places.position)
              FROM ({places}) places
              JOIN annotation_response r ON r.id = places.response_id
              JOIN annotation_responsesource s ON s.id = r.source_id) AS responses,
           coalesce((SELECT json_agg({judgment} ORDER BY j.id)
                       FROM annotation_judgment j
                       JOIN annotation_annotator n ON n.id = j.annotator_id
                       LEFT JOIN annotation_assignment a ON a.id = j.assignment_id
                      WHERE {said}), '[]') AS annotations,
           jsonb_strip_nulls(c.meta || jsonb_build_object(
               'gold', (SELECT g.preference FROM annotation_gold g WHERE g.comparison_id = c.id),
               'settled', (SELECT jsonb_build_object('preference', d.preference, 'strength', d.strength,
                                                     'ranking', d.ranking, 'note', d.note)
                             FROM annotation_adjudication d
                            WHERE d.comparison_id = c.id AND d.superseded_at IS NULL))) AS meta
      FROM (SELECT * FROM annotation_comparison WHERE project_id = {project} ORDER BY id) c
      JOIN annotation_prompt p ON p.id = c.prompt_id
     WHERE EXISTS (SELECT 1 FROM annotation_judgment j JOIN annotation_annotator n ON n.id = j.annotator_id
                    WHERE {said})
        OR EXISTS (SELECT 1 FROM annotation_adjudication d WHERE d.comparison_id = c.id AND d.superseded_at IS NULL)
     ORDER BY c.id
"""
_PLACES = """
    SELECT 0 AS position, c.response_a_id AS response_id UNION ALL SELECT 1, c.response_b_id
 UNION ALL SELECT f.position, f.response_id FROM annotation_furtherresponse f WHERE f.comparison_id = c.id
"""
_SAID = "j.comparison_id = c.id AND j.superseded_at IS NULL AND (n.is_human OR NOT {humans_only})"
_JUDGMENT = (
    """
    json_strip_nulls(json_build_object(
        'annotator', n.name, 'human', n.is_human,
        'preferred_index', CASE j.preference WHEN 'a' THEN 0 WHEN 'b' THEN 1 END,
        'tie', j.preference = 'tie', 'neither', j.preference = 'neither', 'strength', j.strength, 'ranking', j.ranking,
        'rationale', nullif(j.note, ''), 'chips', nullif(j.chips, '{}'),
        'ratings', nullif(j.ratings, '{}'), 'axes', nullif(j.axes, '{}'), 'meta', nullif(j.meta, '{}'),
        'spans', (SELECT json_agg(json_build_object('response', places.position, 'start', e.start, 'end', e."end",
                                                    'kind', e.kind, 'note', e.note,
                                                    'text', substr(r.text, e.start + 1, e."end" - e.start))
                                  ORDER BY places.position, e.start)
                    FROM annotation_errorspan e
                    JOIN annotation_response r ON r.id = e.response_id
                    JOIN ("""
    + _PLACES
    + """) places ON places.response_id = e.response_id
                   WHERE e.judgment_id = j.id),
        'edit', (SELECT json_build_object('text', r.text, 'seconds', e.seconds_spent, 'distance', e.edit_distance)
                   FROM annotation_edit e JOIN annotation_response r ON r.id = e.edited_id
                  WHERE e.judgment_id = j.id),
        'kind', a.kind, 'round', nullif(j.round, 0), 'left', CASE WHEN a.a_shown_on_left THEN 0
            WHEN NOT a.a_shown_on_left THEN 1 END, 'order', a.display_order,
        'guideline_version', nullif(j.guideline_version, 0), 'late', nullif(j.is_late, false),
        'partial', nullif(j.is_partial, false), 'decided_in_ms', j.decided_in_ms, 'first_key_ms', j.first_key_ms,
        'at', j.created_at))
"""
)
# Scores that were given outside any comparison, one record a response.
_RATED = """
    SELECT 'response-' || r.id AS id, p."group", p.lang, p.tags,
           p.messages -> -1 ->> 'content' AS prompt, p.messages,
           json_build_array(json_strip_nulls(json_build_object('model', s.name, 'text', r.text,
                                                               'messages', r.messages))) AS responses,
           (SELECT json_agg(json_strip_nulls(json_build_object(
                       'annotator', n.name, 'human', n.is_human, 'aspect', t.aspect,
                       'label', CASE WHEN t.value IS NULL THEN to_json(t.label) ELSE to_json(t.value) END,
                       'low', t.low, 'high', t.high, 'rationale', nullif(t.note, ''), 'at', t.created_at))
                            ORDER BY t.id)
              FROM annotation_rating t JOIN annotation_annotator n ON n.id = t.annotator_id
             WHERE t.response_id = r.id AND (n.is_human OR NOT {humans_only})) AS annotations
      FROM annotation_prompt p
      JOIN annotation_response r ON r.prompt_id = p.id
      JOIN annotation_responsesource s ON s.id = r.source_id
     WHERE p.project_id = {project}
       AND EXISTS (SELECT 1 FROM annotation_rating t JOIN annotation_annotator n ON n.id = t.annotator_id
                    WHERE t.response_id = r.id AND (n.is_human OR NOT {humans_only}))
     ORDER BY r.id
"""


def write_records(
    kind: Kind, project: Project, file: IO[bytes] | BufferedIOBase, *, humans_only: bool
) -> tuple[int, int]:
    """Write the records of a kind as JSON lines; gives (records, prompts). Needs an open transaction."""
    if kind == Kind.ANNOTATIONS:
        return _write_annotations(project, file, humans_only=humans_only)
    rows = 0
    groups = set()
    for record in (feedback_records if kind == Kind.FEEDBACK else fb_bench_items)(project):
        file.write(json.dumps(record, ensure_ascii=False).encode() + b"\n")
        groups.add(record["id"] if kind == Kind.FEEDBACK else record["user_query"])
        rows += 1
    return rows, len(groups)


def _write_annotations(project: Project, file: IO[bytes] | BufferedIOBase, *, humans_only: bool) -> tuple[int, int]:
    # COPY takes no parameters: a number and a truth value need no quoting.
    values = {"project": int(project.pk), "humans_only": "true" if humans_only else "false"}
    said = _SAID.format(**values)
    judged = _COMPARISONS.format(places=_PLACES, said=said, judgment=_JUDGMENT, **values)
    rows = 0
    for query in (judged, _RATED.format(**values)):
        with contextlib.closing(copy_lines(query)) as lines:
            for line in lines:
                file.write(line)
                rows += 1
    with connection.cursor() as cursor:
        cursor.execute(
            f"""
            SELECT count(DISTINCT prompt_id) FROM (
                SELECT c.prompt_id FROM annotation_comparison c JOIN annotation_judgment j ON j.comparison_id = c.id
                  JOIN annotation_annotator n ON n.id = j.annotator_id
                 WHERE c.project_id = {values["project"]} AND {said}
             UNION ALL
                SELECT r.prompt_id FROM annotation_rating t JOIN annotation_response r ON r.id = t.response_id
                  JOIN annotation_prompt p ON p.id = r.prompt_id JOIN annotation_annotator n ON n.id = t.annotator_id
                 WHERE p.project_id = {values["project"]} AND (n.is_human OR NOT {values["humans_only"]})) prompts
            """
        )
        return rows, cursor.fetchone()[0]
