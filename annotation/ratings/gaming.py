"""Signs that a source wins votes by other means than better answers."""

from __future__ import annotations

from django.db import connection
from django.db.models import TextChoices
from django.utils.translation import gettext_lazy as _

from annotation.models import Project


class Flag(TextChoices):
    CONSTANT = "constant", _("says the same to different prompts")
    LENGTH = "length", _("its votes follow length: with style held equal it rates lower")


FEWEST_RESPONSES = 10
MOST_EQUAL = 0.5
"""Share of a source's responses that read like one of its responses to another prompt."""
LONGER_BY = 1.3
"""How many times as long as its opponents' a source's responses are, by the geometric mean, to be called long."""

# Lengths in bytes: Postgres knows them without reading the text.
_SIGNS = """
    WITH mine AS (
        SELECT r.id, r.source_id, r.prompt_id, r.text_sha256, octet_length(r.text) AS size
          FROM annotation_response r JOIN annotation_prompt p ON p.id = r.prompt_id WHERE p.project_id = %(project)s
    ), texts AS (
        SELECT source_id, text_sha256, count(*) AS times, count(DISTINCT prompt_id) AS prompts
          FROM mine GROUP BY source_id, text_sha256
    ), met AS (
        SELECT a.source_id AS one, b.source_id AS other, ln((a.size + 1.0) / (b.size + 1.0)) AS longer
          FROM annotation_comparison c
          JOIN mine a ON a.id = c.response_a_id
          JOIN mine b ON b.id = c.response_b_id
         WHERE c.project_id = %(project)s AND a.source_id <> b.source_id
    )
    SELECT t.source_id, sum(t.times), sum(t.times) FILTER (WHERE t.prompts > 1),
           (SELECT exp(avg(longer)) FROM (SELECT longer FROM met WHERE one = t.source_id
                                          UNION ALL SELECT -longer FROM met WHERE other = t.source_id) l)
      FROM texts t GROUP BY t.source_id
"""


def signs_by_source(project: Project) -> dict[int, tuple[bool, float | None]]:
    """For each source: whether it says the same to different prompts, and how much longer it writes than opponents."""
    with connection.cursor() as cursor:
        cursor.execute(_SIGNS, {"project": project.pk})
        return {
            pk: (
                responses >= FEWEST_RESPONSES and (repeated or 0) / responses > MOST_EQUAL,
                None if longer is None else float(longer),
            )
            for pk, responses, repeated, longer in cursor.fetchall()
        }
