"""What judges and people said of a job's models on the prompts of its plans, by category and step.

A judge's pair counts half for each side where its verdict turned with the order, and so does a prompt to which both
models wrote the same, of which nobody is asked; one without a usable verdict counts for nobody and is named.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from statistics import fmean

from django.urls import reverse
from django.utils.translation import gettext, ngettext

from annotation.models import Comparison, Prompt, Study
from annotation.shares import FEWEST_PEOPLE, Share
from annotation.study_figures import coverage_of, gsb_figures, rubric_figures
from rlhf.category_changes import FEWEST_PAIRED, Cell, Change, Row, Table, paired_change, share_change
from rlhf.judges.card import DEPENDS, TIE, UNUSABLE, A
from rlhf.judges.verdicts import of_this
from rlhf.models import JobStatus, JudgeRun, PlanKind, PromptEvaluation, TrainingJob


@dataclass(frozen=True)
class Pending:
    """An evaluation without a result, with how far it is."""

    evaluation: PromptEvaluation
    said: str
    url: str
    status: str = ""


def prompt_tables(job: TrainingJob) -> list[tuple[Table, list[Pending]]]:
    """A table for each plan, with what has no result yet."""
    found = job.prompt_evaluations.select_related(
        "plan__project", "plan__judge", "checkpoint__source", "against__source", "generation", "judge_run__judge",
        "study__project", "study__source", "study__against",
    ).order_by("plan", "step")  # fmt: skip
    return [_table(list(evaluations)) for _plan, evaluations in groupby(found, lambda one: one.plan_id)]


def _table(evaluations: Sequence[PromptEvaluation]) -> tuple[Table, list[Pending]]:
    plan = evaluations[0].plan
    make = {
        PlanKind.JUDGE_PAIRS: _pair_rows,
        PlanKind.JUDGE_SCORES: _score_rows,
        PlanKind.GSB: _gsb_rows,
        PlanKind.RUBRIC: _rubric_rows,
    }[PlanKind(plan.kind)]
    done = [one for one in evaluations if _is_done(one)]
    categories, rows = make(done)
    units = {PlanKind.JUDGE_SCORES: gettext("score, 1 to 10"), PlanKind.RUBRIC: gettext("pass rate, percent")}
    table = Table(
        plan.title,
        units.get(PlanKind(plan.kind), gettext("win rate against the base, percent")),
        categories,
        rows,
        is_against_base=plan.kind in (PlanKind.JUDGE_PAIRS, PlanKind.GSB),
    )
    return table, [pending_of(one) for one in evaluations if one not in done]


def _is_done(one: PromptEvaluation) -> bool:
    if one.judge_run is not None:
        return one.judge_run.status == JobStatus.SUCCEEDED
    return one.study is not None and coverage_of(one.study).given > 0


def pending_of(one: PromptEvaluation) -> Pending:
    """How far an evaluation is, with the page to look at."""
    if one.error:
        return Pending(one, one.error, "")
    if one.judge_run is not None:
        url = reverse("judge_run", args=[one.judge_run.pk])
        return Pending(one, one.judge_run.error, url, one.judge_run.status)
    if one.study is not None:
        url = reverse("project_study", args=[one.plan.project.slug, one.study.pk])
        return Pending(one, _judgments_in(one.study), url)
    url = reverse("project_generate", args=[one.plan.project.slug])
    return Pending(one, gettext("responses are being written"), url, one.generation.status if one.generation else "")


# ── Judges ───────────────────────────────────────────────────────────────────────────────────────────────────────


def _facts(evaluations: Iterable[PromptEvaluation]) -> dict[int, tuple[str, str]]:
    """(category, group) of each prompt."""
    ids = {pk for one in evaluations for pk in one.prompt_ids}
    rows = Prompt.objects.filter(pk__in=ids).values_list("pk", "task", "group")
    return {pk: (task or gettext("all"), group) for pk, task, group in rows}


def _pair_rows(done: Sequence[PromptEvaluation]) -> tuple[list[str], list[Row]]:
    facts = _facts(done)
    outcomes = [_pair_outcomes(one) for one in done]
    categories = sorted({facts[prompt][0] for wins, _note in outcomes for prompt in wins})
    rows = []
    for one, (wins, note) in zip(done, outcomes, strict=True):

        def cell(category: str | None, wins: Mapping[int, float] = wins) -> Cell:
            kept = [prompt for prompt in wins if category in (None, facts[prompt][0])]
            return _win_cell(Share.two_way([wins[p] for p in kept], [facts[p][1] for p in kept], [0] * len(kept)))

        cells = [cell(category) for category in categories]
        assert one.judge_run is not None
        rows.append(Row(one.step, cells, whole=cell(None), url=_run_url(one.judge_run), note=note))
    return categories, rows


def _pair_outcomes(one: PromptEvaluation) -> tuple[dict[int, float], str]:
    """What each prompt is to the new model (1 won, ½ even, 0 lost), and what else is to be said."""
    assert one.judge_run is not None
    codes, _orders = of_this(one.judge_run)
    wins: dict[int, float] = {}
    new = one.checkpoint.source_id
    asked = Comparison.objects.filter(pk__in=codes).values_list("pk", "prompt", "response_a__source")
    for comparison, prompt, source in asked:
        code = codes[comparison]
        if code == UNUSABLE:
            continue
        wins[prompt] = 0.5 if code in (TIE, DEPENDS) else float((code == A) == (source == new))
    judged = {prompt for _pk, prompt, _source in asked}
    alike = [prompt for prompt in one.prompt_ids if prompt not in judged]
    wins |= dict.fromkeys(alike, 0.5)
    counts = Counter(codes.values())
    return wins, _said(
        (counts[UNUSABLE], gettext("%(count)s without a usable verdict, left out")),
        (counts[DEPENDS], gettext("%(count)s turned with the order, half for each side")),
        (len(alike), gettext("%(count)s where both wrote the same, half for each side")),
    )


def _said(*counts: tuple[int, str]) -> str:
    return "; ".join(words % {"count": f"{count:,}"} for count, words in counts if count)


def _run_url(run: JudgeRun) -> str:
    return reverse("judge_run", args=[run.pk])


def _win_cell(share: Share | None, *, is_told: bool = True) -> Cell:
    """is_told: whether enough was asked for the interval to be believed where it says that something fell."""
    if share is None:
        return Cell(None, 0)
    value, lower, upper = (100 * number for number in (share.value, share.lower, share.upper))
    told = is_told and share.count >= FEWEST_PAIRED
    change = Change(value - 50, lower - 50, upper - 50, share.count) if told else None
    return Cell(value, share.count, change, ends=(lower, upper))


def _score_rows(done: Sequence[PromptEvaluation]) -> tuple[list[str], list[Row]]:
    facts = _facts(done)
    scores: list[dict[str, dict[int, float]]] = []
    notes = []
    for one in done:
        assert one.judge_run is not None
        by_category: dict[str, dict[int, float]] = {}
        unusable = 0
        for prompt, score in one.judge_run.verdicts.values_list("response__prompt", "score"):
            if score is None:
                unusable += 1
            elif prompt in facts:
                by_category.setdefault(facts[prompt][0], {})[prompt] = float(score)
        scores.append(by_category)
        notes.append(_said((unusable, gettext("%(count)s without a usable score, left out"))))
    categories = sorted({category for by_category in scores for category in by_category})
    rows = []
    for place, one in enumerate(done):
        assert one.judge_run is not None
        cells = [_score_cell(place, [found.get(category, {}) for found in scores]) for category in categories]
        whole = _score_cell(
            place, [{pk: score for part in found.values() for pk, score in part.items()} for found in scores]
        )
        rows.append(Row(one.step, cells, whole=whole, url=_run_url(one.judge_run), note=notes[place]))
    return categories, rows


def _score_cell(place: int, scores: Sequence[Mapping[int, float]]) -> Cell:
    own = scores[place]
    if not own:
        return Cell(None, 0)
    first = paired_change(scores[0], own, scale=1) if place else None
    last = paired_change(scores[place - 1], own, scale=1) if place > 1 else None
    return Cell(fmean(own.values()), len(own), first, last)


# ── People ───────────────────────────────────────────────────────────────────────────────────────────────────────


def _study_url(one: PromptEvaluation) -> str:
    assert one.study is not None
    return reverse("project_study", args=[one.plan.project.slug, one.study.pk])


def _judgments_in(study: Study) -> str:
    found = coverage_of(study)
    return ngettext(
        "%(given)s of %(wanted)s judgment is in", "%(given)s of %(wanted)s judgments are in", found.wanted
    ) % {"given": f"{found.given:,}", "wanted": f"{found.wanted:,}"}


def _coverage_note(one: PromptEvaluation) -> str:
    assert one.study is not None
    said = _judgments_in(one.study)
    if one.plan.kind != PlanKind.GSB:
        return said
    alike = len(one.prompt_ids) - one.study.items.count()
    return "; ".join(filter(None, (said, _said((alike, gettext("%(count)s where both wrote the same, not asked"))))))


def _gsb_rows(done: Sequence[PromptEvaluation]) -> tuple[list[str], list[Row]]:
    figures = [gsb_figures(one.study) for one in done if one.study]
    parts = [
        {part.label or gettext("all"): part.found for part in found.slices if part.axis == "capability"}
        for found in figures
    ]
    categories = sorted({label for by_label in parts for label in by_label})
    rows = []
    for one, found, by_label in zip(done, figures, parts, strict=True):
        cells = []
        for category in categories:
            win_rate = by_label.get(category)
            is_told = win_rate is not None and win_rate.people_counted and win_rate.prompts >= FEWEST_PAIRED
            cells.append(_win_cell(win_rate.rate if win_rate else None, is_told=is_told))
        whole = _win_cell(found.whole.rate, is_told=found.whole.people_counted)
        rows.append(Row(one.step, cells, whole=whole, url=_study_url(one), note=_coverage_note(one)))
    return categories, rows


def _rubric_rows(done: Sequence[PromptEvaluation]) -> tuple[list[str], list[Row]]:
    """The base's row is of the newest study: there the same people rated both."""
    measured: list[tuple[PromptEvaluation, dict[str | None, tuple[Share | None, Share | None, bool]]]] = []
    for one in done:
        assert one.study is not None
        found = rubric_figures(one.study)
        slices = [(part.label or gettext("all"), part.found) for part in found.slices if part.axis == "capability"]
        by_label: dict[str | None, tuple[Share | None, Share | None, bool]] = {}
        for label, (new, old) in [(None, found.whole), *slices]:
            is_told = min(new.samples, old.samples) >= FEWEST_PAIRED and min(new.people, old.people) >= FEWEST_PEOPLE
            by_label[label] = (new.shares.get("passed"), old.shares.get("passed"), is_told)
        measured.append((one, by_label))
    categories = sorted({label for _one, by_label in measured for label in by_label if label is not None})
    if not measured:
        return categories, []
    newest = measured[-1][1]
    base = [_pass_cell(newest.get(label, (None, None, False))[1]) for label in (None, *categories)]
    rows = [Row(0, base[1:], whole=base[0])]
    for one, by_label in measured:
        cells = [_pass_cell(*by_label.get(label, (None, None, False))) for label in (None, *categories)]
        rows.append(Row(one.step, cells[1:], whole=cells[0], url=_study_url(one), note=_coverage_note(one)))
    return categories, rows


def _pass_cell(share: Share | None, base: Share | None = None, is_told: bool = False) -> Cell:
    if share is None:
        return Cell(None, 0)
    change = share_change(base, share) if base and is_told else None
    return Cell(100 * share.value, share.count, change)
