"""Benchmarks' data sets, checklists and runs: every write; what is CFBench's and SysBench's alone is beside it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from django.contrib.auth.models import User
from django.db import transaction
from django.db.models import Max, QuerySet
from django.db.models.functions import Now
from django.utils import timezone
from django.utils.translation import gettext

from annotation.models import Annotator, EventKind, Project, ResponseSource, SourceKind
from annotation.services import DomainError, record_event
from rlhf.benchmark_figures import report_of
from rlhf.evaluation import fb_bench
from rlhf.evaluation.fb_bench import DataSet, Item, Verdict
from rlhf.models import (
    Benchmark,
    BenchmarkAnswer,
    BenchmarkItem,
    BenchmarkJudgment,
    BenchmarkRun,
    BenchmarkSet,
    BenchmarkTicks,
    Checklist,
    JobStatus,
    JudgmentFailure,
)
from rlhf.models.evaluation import key_of
from rlhf.services import leases

RAW_CHARS_KEPT = 20_000


# ── Data sets and checklists ─────────────────────────────────────────────────────────────────────────────────────


def import_benchmark_set(data_set: DataSet, *, name: str, by: User | None = None) -> tuple[BenchmarkSet, bool]:
    """(the stored data set, whether it is new)."""
    return new_or_known_set(
        data_set.sha256, Benchmark.FB_BENCH, name, by, lambda stored: add_items(stored, data_set.items, by=by)
    )


def new_or_known_set(
    sha256: str, kind: Benchmark, name: str, by: User | None, fill: Callable[[BenchmarkSet], object]
) -> tuple[BenchmarkSet, bool]:
    """(the data set, whether it is new and was filled): the same file is the same set, whatever it is called."""
    known = BenchmarkSet.objects.filter(sha256=sha256).first()
    if known:
        return known, False
    name = name.strip()[:180] or kind.label
    if BenchmarkSet.objects.filter(name=name).exists():
        name = f"{name} ({sha256[:6]})"
    with transaction.atomic():
        stored = BenchmarkSet.objects.create(name=name, kind=kind, sha256=sha256, created_by=by)
        fill(stored)
    return stored, True


def add_items(
    data_set: BenchmarkSet, items: Sequence[Item], *, by: User | None = None, drafted_by: ResponseSource | None = None
) -> list[BenchmarkItem]:
    """Append items with the first versions of their checklists."""
    last = data_set.items.aggregate(last=Max("position"))["last"] or 0
    rows = BenchmarkItem.objects.bulk_create(
        BenchmarkItem(
            data_set=data_set,
            position=position,
            key=item.key,
            scenario=key_of(item.scenario),
            task=item.task,
            sub_task=item.sub_task,
            query=item.query,
            first_response=item.first_response,
            feedback=item.feedback,
            deficiency_types=[key_of(label) for label in item.deficiencies],
            feedback_types=[key_of(label) for label in item.feedback_types],
            reference=item.reference,
        )
        for position, item in enumerate(items, last + 1)
    )
    Checklist.objects.bulk_create(
        Checklist(item=row, criteria=_stored(item.checklist), created_by=by, drafted_by=drafted_by)
        for row, item in zip(rows, items, strict=True)
    )
    return rows


def own_benchmark_set(project: Project, by: User) -> BenchmarkSet:
    """The data set that grows out of a project's conversations."""
    found = BenchmarkSet.objects.filter(project=project).first()
    if found:
        return found
    name = gettext("Conversations of %(name)s") % {"name": project.name}
    if BenchmarkSet.objects.filter(name=name).exists():
        name = f"{name} ({project.slug})"
    return BenchmarkSet.objects.create(name=name[:200], project=project, created_by=by)


def take_over_item(
    project: Project,
    item: Item,
    criteria: Sequence[tuple[str, float | None]],
    *,
    by: User,
    drafted_by: ResponseSource | None = None,
) -> BenchmarkItem:
    """Add an item that somebody gave a checklist to the project's own data set. Raises DomainError."""
    value = [text if weight is None else [text, weight] for text, weight in criteria]
    try:
        checklist = fb_bench.parse_checklist(value, item.scenario)
        checked = fb_bench.parse_item(replace(item, checklist=checklist).as_row())
    except fb_bench.UnusableItemError as error:
        raise DomainError(str(error)) from None
    with transaction.atomic():
        data_set = BenchmarkSet.objects.select_for_update().get(pk=own_benchmark_set(project, by).pk)
        if data_set.items.filter(key=checked.key).exists():
            raise DomainError(gettext("An item with this question is there already."))
        return add_items(data_set, [checked], by=by, drafted_by=drafted_by)[0]


def assign_set(data_set: BenchmarkSet, project: Project | None, *, by: User) -> None:
    """Let the people of a project tick the answers to a data set; None: only staff does."""
    with transaction.atomic():
        before = BenchmarkSet.objects.select_for_update().get(pk=data_set.pk).ticked_in
        BenchmarkSet.objects.filter(pk=data_set.pk).update(ticked_in=project)
        for one in {before, project} - {None}:
            given = "given" if one == project else "taken"
            record_event(EventKind.SETTINGS, project=one, user=by, answers_to_tick=data_set.name, action=given)


def drop_items(items: Sequence[BenchmarkItem]) -> int:
    """Leave items out of runs to come; what was judged stays."""
    return BenchmarkItem.objects.filter(pk__in=[item.pk for item in items]).update(dropped_at=Now())


def bring_back_items(items: QuerySet[BenchmarkItem]) -> int:
    """Have runs to come ask them again."""
    return items.exclude(dropped_at=None).update(dropped_at=None)


def revise_checklist(
    item: BenchmarkItem,
    criteria: Sequence[tuple[str, float | None]],
    *,
    based_on: int,
    by: User,
    drafted_by: ResponseSource | None = None,
) -> Checklist:
    """A new version of an item's checklist.

    Raises DomainError for one that breaks the rules of its scenario, and where somebody saved after version
    `based_on`.
    """
    value = [text if weight is None else [text, weight] for text, weight in criteria]
    try:
        checked = fb_bench.parse_checklist(value, item.as_item([]).scenario)
    except fb_bench.UnusableItemError as error:
        raise DomainError(str(error)) from None
    with transaction.atomic():
        BenchmarkItem.objects.select_for_update().get(pk=item.pk)
        newest = item.checklists.last()
        version = newest.version if newest else 0
        if version != based_on:
            raise DomainError(
                gettext("Somebody saved version %(version)s meanwhile. Load it and make your change there.")
                % {"version": version}
            )
        if newest and newest.criteria == _stored(checked):
            return newest
        return Checklist.objects.create(
            item=item, version=version + 1, criteria=_stored(checked), created_by=by, drafted_by=drafted_by
        )


def _stored(checklist: Sequence[fb_bench.Criterion]) -> list[list[Any]]:
    return [[criterion.text, criterion.weight] for criterion in checklist]


# ── Runs ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def queue_benchmark_run(
    *,
    data_set: BenchmarkSet,
    source: ResponseSource,
    judge: ResponseSource | None,
    answers_from: BenchmarkRun | None = None,
    created_by: User | None = None,
    **limits: Any,
) -> BenchmarkRun:
    """Have a source answer a data set and a judge tick the checklists; with `answers_from`, only the ticking.

    Without a judge there are only answers, which people can tick, and a judge later.

    limits: prompt_language, max_tokens, judge_max_tokens, judge_attempts, parallel. Raises DomainError.
    """
    for asked in (judge,) if answers_from else (source, judge):
        if asked and asked.kind != SourceKind.MODEL:
            raise DomainError(
                gettext("%(name)s is a name in imported data, not a model that can be asked") % {"name": asked.name}
            )
    if not data_set.items.exists():
        raise DomainError(gettext("%(name)s has no items yet; add some first") % {"name": data_set.name})
    if answers_from is not None:
        if judge is None:
            raise DomainError(gettext("Say who judges these answers."))
        if answers_from.data_set_id != data_set.pk or answers_from.source_id != source.pk:
            raise DomainError(gettext("These answers are of another data set or another model."))
        answers_from = answers_from.answers_from or answers_from
        limits["max_tokens"] = answers_from.max_tokens  # their cap, whatever else was asked
    with transaction.atomic():
        run = BenchmarkRun(
            data_set=data_set, source=source, judge=judge, answers_from=answers_from, created_by=created_by, **limits
        )
        run.clean_fields(exclude=["owner", "lease_expires_at", "created_by"])
        run.save()
        transaction.on_commit(lambda: leases.dispatch_job(run))
    return run


def reopen_benchmark_run(run: BenchmarkRun, *, retry_failures: bool = False) -> bool:
    """Put a failed or cancelled run back into the queue, to fill what is missing.

    retry_failures: also throw away answers and judgments that failed, so that they are asked for again; a finished
    run may be reopened for that. False where the run is under way.
    """
    if run.is_imported:
        return False
    with transaction.atomic():
        if not leases.reopen_job(run, even_succeeded=retry_failures):
            return False
        if retry_failures:
            run.judgments.exclude(failure="").delete()
            if run.answers_from_id is None:
                run.answers.exclude(error="").filter(judgments=None).delete()
        transaction.on_commit(lambda: leases.dispatch_job(run))
    return True


def set_parallel(run: BenchmarkRun, parallel: int) -> None:
    """How many requests the run sends at a time from the next time on that it is taken up."""
    run.parallel = parallel
    run.clean_fields(exclude=["owner", "lease_expires_at", "created_by"])
    run.save(update_fields=["parallel"])


def import_benchmark_run(data_set: BenchmarkSet, content: bytes, name: str, *, by: User | None = None) -> Imported:
    """Keep a file of answers or judgments in the authors' shape as finished runs, one for each model and judge.

    Raises UnusableFileError where no row is about an item of the data set.
    """
    items = {item.query: item for item in data_set.items.with_checklist()}
    imported = Imported()
    runs: dict[tuple[str, str], list[tuple[BenchmarkItem, dict[str, Any]]]] = {}
    seen: set[tuple[str, str, str]] = set()
    for row, value, error in fb_bench.read_rows(content, name):
        reason = error or _why_not(value, items)
        if not reason:
            who = (str(value.get("infer_model", "")), str(value.get("judge_model", "")))
            if (*who, value["user_query"]) in seen:
                reason = "an earlier row has the same item of the same model; the earlier one counts"
            else:
                seen.add((*who, value["user_query"]))
                runs.setdefault(who, []).append((items[value["user_query"]], value))
        if reason:
            imported.refusals.append(fb_bench.Refusal(row, reason))
    if not runs:
        why = f"; row {imported.refusals[0].row}: {imported.refusals[0].reason}" if imported.refusals else ""
        raise fb_bench.UnusableFileError(f"{name} holds no answer to an item of {data_set.name}{why}")
    with transaction.atomic():
        for (model, judge), rows in runs.items():
            judged_by = source_named(judge) if judge else None
            run = _import_rows(data_set, source_named(model), judged_by, rows, by)
            run.report = report_of(run)
            run.save(update_fields=["report"])
            imported.runs.append(run)
    return imported


@dataclass
class Imported:
    """What became of a file: the runs, and the rows that were left out."""

    runs: list[BenchmarkRun] = field(default_factory=list)
    refusals: list[fb_bench.Refusal] = field(default_factory=list)


def _why_not(value: Any, items: dict[str, BenchmarkItem]) -> str:
    if not isinstance(value, dict) or not isinstance(value.get("user_query"), str):
        return "there is no user_query"
    if value["user_query"] not in items:
        return "the data set has no such item"
    if not isinstance(value.get("second_response"), str):
        return "there is no second_response"
    return ""


def _import_rows(
    data_set: BenchmarkSet,
    source: ResponseSource,
    judge: ResponseSource | None,
    rows: Sequence[tuple[BenchmarkItem, dict[str, Any]]],
    by: User | None,
) -> BenchmarkRun:
    run = BenchmarkRun.objects.create(
        data_set=data_set,
        source=source,
        judge=judge,
        is_imported=True,
        status=JobStatus.SUCCEEDED,
        finished_at=timezone.now(),
        created_by=by,
    )
    answers = BenchmarkAnswer.objects.bulk_create(
        BenchmarkAnswer(run=run, item=item, **_imported_answer(value)) for item, value in rows
    )
    if judge:
        checklists = {
            checklist.pk: checklist
            for checklist in Checklist.objects.filter(pk__in=[item.checklist_id for item, _ in rows])  # type: ignore[attr-defined]
        }
        BenchmarkJudgment.objects.bulk_create(
            _imported_judgment(run, answer, checklists[item.checklist_id], value)  # type: ignore[attr-defined]
            for answer, (item, value) in zip(answers, rows, strict=True)
        )
    return run


def _imported_answer(value: dict[str, Any]) -> dict[str, str]:
    """Files of our own say where the model gave none."""
    text = storable(value["second_response"])
    if text or value.get("failure") != JudgmentFailure.NO_ANSWER:
        return {"text": text}
    return {"error": storable(str(value.get("failure_note") or "the file holds no answer"))[:2000]}


def _imported_judgment(
    run: BenchmarkRun, answer: BenchmarkAnswer, checklist: Checklist, value: dict[str, Any]
) -> BenchmarkJudgment:
    judgment = BenchmarkJudgment(run=run, item_id=answer.item_id, answer=answer, checklist=checklist)
    judgement = value.get("judgement")
    judgment.is_repetitive = fb_bench.is_repetitive(judgement)
    if judgment.is_repetitive:
        verdicts: Sequence[Verdict] = [Verdict(False) for _ in checklist.criteria]
    else:
        try:
            verdicts = fb_bench.parse_judgement(judgement, checklist.as_criteria, by_place=True)
        except fb_bench.UnusableJudgmentError as error:
            # Files of our own say what the failure was.
            known = value.get("failure") in JudgmentFailure.values
            judgment.failure = value["failure"] if known else str(error.failure)
            judgment.note = storable(str(value.get("failure_note") or error))[:2000]
            judgment.raw = storable(str(value.get("raw") or ""))[:RAW_CHARS_KEPT]
            return judgment
    judgment.met = [verdict.is_met for verdict in verdicts]
    judgment.reasons = [storable(verdict.reason) for verdict in verdicts]
    judgment.score = fb_bench.item_score(checklist.as_criteria, judgment.met)
    return judgment


def benchmark_seed(source: ResponseSource, item: BenchmarkItem, attempt: int = 0) -> int:
    """The same for the same source, item and try."""
    return int.from_bytes(hashlib.sha256(f"{source.name}\n{item.key}\n{attempt}".encode()).digest()[:4], "big") >> 1


def store_answer(run: BenchmarkRun, item: BenchmarkItem, **fields: Any) -> bool:
    """Keep an answer or its failure; False where there is one already."""
    _answer, is_new = BenchmarkAnswer.objects.get_or_create(run=run, item=item, defaults=fields)
    return is_new


def store_judgment(
    run: BenchmarkRun,
    answer: BenchmarkAnswer,
    checklist: Checklist,
    verdicts: Sequence[Verdict] = (),
    *,
    failure: str = "",
    note: str = "",
    raw: str = "",
    is_repetitive: bool = False,
    **fields: Any,
) -> bool:
    """Keep a judge's verdicts with the score they make, or their failure; False where there is a judgment already."""
    if not failure:
        fields["met"] = [verdict.is_met for verdict in verdicts]
        fields["reasons"] = [storable(verdict.reason) for verdict in verdicts]
        fields["score"] = checklist.score(fields["met"])
    _judgment, is_new = BenchmarkJudgment.objects.get_or_create(
        run=run,
        item_id=answer.item_id,
        defaults={
            "answer": answer,
            "checklist": checklist,
            "failure": JudgmentFailure(failure) if failure else "",
            "note": storable(note)[:2000],
            "raw": storable(raw)[:RAW_CHARS_KEPT],
            "is_repetitive": is_repetitive,
            **fields,
        },
    )
    return is_new


def storable(text: str) -> str:
    """With U+FFFD for what no database keeps: NUL, and halves of characters."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace").replace("\0", "�")


def store_ticks(
    answer: BenchmarkAnswer, checklist: Checklist, annotator: Annotator, met: Sequence[bool], note: str = ""
) -> None:
    """Keep a person's ticks, in place of what they ticked before by the same checklist. Raises DomainError."""
    if len(met) != len(checklist.criteria):
        raise DomainError(gettext("Say yes or no to every criterion."))
    BenchmarkTicks.objects.update_or_create(
        answer=answer,
        annotator=annotator,
        checklist=checklist,
        defaults={"met": list(met), "note": storable(note)[:2000]},
    )


def source_named(name: str) -> ResponseSource:
    """The source that imported files name; made where there is none."""
    name = storable(name.strip())[:200] or "unknown"
    return ResponseSource.objects.get_or_create(name=name, defaults={"kind": SourceKind.IMPORTED})[0]


def set_name_of(path: Path) -> str:
    return path.stem.replace("_", " ")
