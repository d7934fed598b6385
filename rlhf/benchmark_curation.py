"""New FB-Bench items out of the conversations that people had here: typed feedback on a first response.

What is offered has its personal data masked, and says which item it nearly repeats.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from django.db.models import Count

from annotation.duplicates import ALIKE, Hashes, passages, similarity
from annotation.feedback import feedback_records
from annotation.models import Project, ResponseSource, Turn
from annotation.personal_data import find_personal_data, mask_text
from rlhf.evaluation.fb_bench import Item, Scenario
from rlhf.models import BenchmarkItem, BenchmarkJudgment, BenchmarkSet
from rlhf.models.evaluation import label_of


@dataclass(frozen=True, slots=True)
class Candidate:
    turn_id: int
    item: Item
    """Masked, and without a checklist."""
    masked: int
    """How many pieces of personal data were masked."""
    like: str = ""
    """What it nearly repeats; such a candidate is not offered for taking over."""


def candidates(project: Project, data_set: BenchmarkSet | None) -> list[Candidate]:
    """Every first response with typed feedback that is not in the data set yet, in the order of the feedback."""
    known: list[tuple[str, Hashes]] = []
    keys: set[str] = set()
    if data_set:
        for position, query, feedback, key in data_set.items.values_list("position", "query", "feedback", "key"):
            known.append((f"#{position}", passages(f"{query}\n{feedback}")))
            keys.add(key)
    found = []
    for candidate in _records(project):
        if candidate.item.key in keys:
            continue
        hashes = passages(f"{candidate.item.query}\n{candidate.item.feedback}")
        like = next((name for name, other in known if similarity(hashes, other) >= ALIKE), "")
        if not like:
            known.append((candidate.item.query[:60], hashes))
        found.append(replace(candidate, like=like))
    return found


def candidate_of(project: Project, turn_id: int) -> Candidate | None:
    if not Turn.objects.filter(pk=turn_id, conversation__project=project).exists():
        return None
    return next((candidate for candidate in _records(project) if candidate.turn_id == turn_id), None)


def _records(project: Project) -> Iterator[Candidate]:
    for record in feedback_records(project):
        if len(record["messages"]) != 1:
            continue
        masked = [
            _masked(text, record["lang"])
            for text in (record["messages"][0]["content"], record["response"]["text"], record["feedback"])
        ]
        query, first_response, feedback = (text for text, _count in masked)
        if not (query.strip() and first_response.strip() and feedback.strip()):
            continue
        item = Item(
            scenario=Scenario(label_of(record["scenario"])),
            task=record["task"] or "Other",
            sub_task="",
            query=query,
            first_response=first_response,
            feedback=feedback,
            deficiencies=tuple(map(label_of, record["deficiency_types"])),
            feedback_types=tuple(map(label_of, record["feedback_types"])),
            checklist=(),
        )
        yield Candidate(record["id"], item, sum(count for _text, count in masked))


def _masked(text: str, lang: str) -> tuple[str, int]:
    findings = find_personal_data(text, lang)
    return mask_text(text, findings), len(findings)


def judges_of(data_set: BenchmarkSet) -> dict[ResponseSource, int]:
    """Who judged answers to it, and of how many models; the one with most of them first."""
    counts = dict(
        data_set.runs.filter(judge__isnull=False, judgments__score__isnull=False)
        .order_by("judge")
        .values_list("judge")
        .annotate(models=Count("source", distinct=True))
    )
    judges = ResponseSource.objects.filter(pk__in=counts)
    return {judge: counts[judge.pk] for judge in sorted(judges, key=lambda judge: (-counts[judge.pk], judge.name))}


def solved_by_all(data_set: BenchmarkSet, models: int, judge: ResponseSource) -> list[BenchmarkItem]:
    """The items that at least so many models answered, each of which did all that the checklist asks.

    By this judge's judgments; of each model that of its newest run, which does not count as solved where it failed.
    """
    best: dict[int, dict[int, float]] = {}
    rows = BenchmarkJudgment.objects.filter(run__data_set=data_set, run__judge=judge)
    for source, item, score in rows.order_by("run").values_list("run__source", "item", "score"):
        best.setdefault(item, {})[source] = score or 0.0
    solved = [
        item for item, scores in best.items() if len(scores) >= models and all(value >= 1 for value in scores.values())
    ]
    return list(data_set.items.filter(pk__in=solved, dropped_at=None))
