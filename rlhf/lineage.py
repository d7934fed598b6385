"""Where a checkpoint comes from and what came of it, in a fixed number of queries."""

from __future__ import annotations

from dataclasses import dataclass

from django.db import connection

from annotation.models import Project
from rlhf.models import BenchmarkRun, Checkpoint, GenerationJob, TrainingJob

_ANCESTORS = """
    WITH RECURSIVE line AS (
        SELECT id, parent_id, 0 AS distance FROM rlhf_checkpoint WHERE id = %s
        UNION ALL
        SELECT c.id, c.parent_id, line.distance + 1 FROM rlhf_checkpoint c JOIN line ON c.id = line.parent_id
    )
    SELECT id FROM line WHERE distance > 0 ORDER BY distance DESC
"""
# From the source's responses to the comparisons that show them and the live votes on those, by project. Whatever it
# writes against itself counts once.
_DOWNSTREAM = """
    WITH mine AS (
        SELECT r.id, r.prompt_id, p.project_id
          FROM annotation_response r JOIN annotation_prompt p ON p.id = r.prompt_id
         WHERE r.source_id = %(source)s
    ), shown AS (
        SELECT c.id, c.project_id FROM annotation_comparison c
          JOIN mine ON mine.prompt_id = c.prompt_id AND mine.id IN (c.response_a_id, c.response_b_id)
        UNION SELECT c.id, c.project_id FROM annotation_furtherresponse f JOIN mine ON mine.id = f.response_id
                JOIN annotation_comparison c ON c.id = f.comparison_id
    )
    SELECT project_id, sum(responses), sum(comparisons), sum(judged), sum(judgments)
      FROM (SELECT project_id, count(*) AS responses, 0 AS comparisons, 0 AS judged, 0 AS judgments
              FROM mine GROUP BY project_id
            UNION ALL
            SELECT s.project_id, 0, count(*), count(*) FILTER (WHERE j.votes > 0), coalesce(sum(j.votes), 0)
              FROM shown s
              LEFT JOIN LATERAL (SELECT count(*) AS votes FROM annotation_judgment j
                                  WHERE j.comparison_id = s.id AND j.superseded_at IS NULL AND j.round = 0) j ON true
             GROUP BY s.project_id) counted
     GROUP BY project_id
"""


@dataclass(frozen=True)
class Written:
    """What a published checkpoint wrote for one project, and what became of it."""

    project: Project
    responses: int
    comparisons: int
    judged: int
    """Comparisons with at least one live vote."""
    judgments: int


@dataclass(frozen=True)
class Lineage:
    """Both directions from one checkpoint; what lies further away is on the pages that these name."""

    ancestors: list[Checkpoint]
    """From the first base to the parent."""
    written: list[Written]
    generation_jobs: list[GenerationJob]
    """The newest five."""
    benchmark_runs: list[BenchmarkRun]
    """The newest five."""
    merged_into: list[TrainingJob]


def lineage_of(checkpoint: Checkpoint) -> Lineage:
    """Up to seven queries; children and jobs are the checkpoint's own relations."""
    with connection.cursor() as cursor:
        cursor.execute(_ANCESTORS, [checkpoint.pk])
        ids = [row[0] for row in cursor.fetchall()]
        found = Checkpoint.objects.in_bulk(ids) if ids else {}
        rows = []
        if checkpoint.source_id:
            cursor.execute(_DOWNSTREAM, {"source": checkpoint.source_id})
            rows = cursor.fetchall()
    projects = Project.objects.in_bulk([row[0] for row in rows]) if rows else {}
    written = [Written(projects[row[0]], *map(int, row[1:])) for row in rows]
    jobs: list[GenerationJob] = []
    runs: list[BenchmarkRun] = []
    if checkpoint.source_id:
        jobs = list(
            GenerationJob.objects.filter(source=checkpoint.source_id).select_related("project").order_by("-pk")[:5]
        )
        runs = list(
            BenchmarkRun.objects.filter(source=checkpoint.source_id).select_related("data_set").order_by("-pk")[:5]
        )
    merges = list(
        TrainingJob.objects.filter(merge_inputs__checkpoint=checkpoint).select_related("checkpoint").order_by("pk")
    )
    return Lineage(
        [found[pk] for pk in ids],
        sorted(written, key=lambda one: (-one.judgments, one.project.name)),
        jobs,
        runs,
        merges,
    )
