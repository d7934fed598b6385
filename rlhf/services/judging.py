"""Judges: the versions of what they are asked, their runs and verdicts, and their votes. Every write."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator
from dataclasses import asdict
from typing import Any

from django.contrib.auth.models import User
from django.db import IntegrityError, transaction
from django.db.models import Exists, OuterRef, QuerySet, TextField
from django.db.models.functions import MD5, Cast
from django.utils.translation import gettext

from annotation.models import Comparison, Judgment, Project, Response, ResponseSource, SourceKind
from annotation.services import DomainError
from annotation.services.model_votes import store_model_votes
from rlhf.judges import wording
from rlhf.judges.card import CODE_OF_PREFERENCE, DEPENDS, UNUSABLE, Card
from rlhf.models import JudgeKind, JudgeOutcome, JudgePrompt, JudgeRun, JudgeScope, JudgeVerdict
from rlhf.services import leases
from rlhf.services.benchmarks import storable

RAW_CHARS_KEPT = 20_000
NOTE_CHARS_KEPT = 2_000
_BATCH = 2_000


# ── What is asked ────────────────────────────────────────────────────────────────────────────────────────────────


def prompts_in_force(kind: str, language: str) -> dict[str, JudgePrompt]:
    """The newest version for each task, "" for all others; what came with the site may not be stored yet."""
    came = [one for one in wording.BUILTINS if (one.kind, one.language) == (kind, language)]
    return {one.task: JudgePrompt(version=1, **asdict(one)) for one in came} | {
        prompt.task: prompt for prompt in JudgePrompt.objects.filter(kind=kind, language=language)
    }


def store_prompts_in_force(kind: str, language: str) -> dict[str, JudgePrompt]:
    """`prompts_in_force`, all of them stored."""
    missing = [prompt for prompt in prompts_in_force(kind, language).values() if prompt.pk is None]
    if missing:
        JudgePrompt.objects.bulk_create(missing, ignore_conflicts=True)
    return prompts_in_force(kind, language)


def edit_prompt(
    kind: str, task: str, language: str, text: str, *, based_on: int, by: User | None, asks_sameness: bool = False
) -> JudgePrompt:
    """A new version; the same text again changes nothing.

    based_on: the version that was edited, 0 for the first one of a task. Raises DomainError where a placeholder is
    missing, and where somebody saved meanwhile.
    """
    task, text = task.strip(), text.replace("\r\n", "\n").strip()
    if not text or len(text) > wording.MAX_TEXT_CHARS:
        raise DomainError(
            gettext("Write a text of 1 to %(most)s characters.") % {"most": f"{wording.MAX_TEXT_CHARS:,}"}
        )
    if missing := wording.faults_of(kind, text):
        raise DomainError(
            gettext("The text lacks %(names)s: without it the judge does not see what it is to judge.")
            % {"names": ", ".join(missing)}
        )
    newest = store_prompts_in_force(kind, language).get(task)
    version = newest.version if newest else 0
    if newest and (newest.text, newest.asks_sameness) == (text, asks_sameness):
        return newest
    if version == based_on:
        try:
            with transaction.atomic():
                return JudgePrompt.objects.create(
                    kind=kind,
                    task=task,
                    language=language,
                    version=version + 1,
                    text=storable(text),
                    asks_sameness=asks_sameness and kind == JudgeKind.PAIR,
                    created_by=by,
                )
        except IntegrityError:
            version += 1
    raise DomainError(
        gettext("Somebody saved version %(version)s meanwhile. Load it and make your change there.")
        % {"version": version}
    )


# ── Runs ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def queue_judge_run(
    *,
    project: Project,
    judge: ResponseSource,
    kind: str = JudgeKind.PAIR,
    scope: str = JudgeScope.VOTED,
    language: str = "zh",
    limit: int | None = None,
    about: Collection[int] | None = None,
    created_by: User | None = None,
    **limits: Any,
) -> JudgeRun:
    """Have a judge compare, or score, what a project holds; `limit` keeps to so many comparisons, evenly drawn.

    about: of an automatic evaluation, the ids of just the comparisons to judge, or of the responses to score.
    limits: max_tokens, attempts, parallel. Raises DomainError, ValidationError.
    """
    if judge.kind != SourceKind.MODEL:
        raise DomainError(
            gettext("%(name)s is a name in imported data, not a model that can be asked") % {"name": judge.name}
        )
    if about is None and scope == JudgeScope.EVALUATION:
        raise DomainError(gettext("only automatic evaluations ask about their own prompts; choose what to judge"))
    prompts = store_prompts_in_force(kind, language)
    with transaction.atomic():
        run = JudgeRun(
            project=project,
            judge=judge,
            kind=kind,
            scope=scope,
            language=language,
            prompt_ids=sorted(prompt.pk for prompt in prompts.values()),
            created_by=created_by,
            **limits,
        )
        run.clean_fields(exclude=["owner", "lease_expires_at", "created_by"])
        run.save()
        by_task = {task.casefold(): prompt for task, prompt in prompts.items()}
        questions = _questions(run, by_task, limit, about)
        count = 0
        for batch in _batches(questions):
            count += len(JudgeVerdict.objects.bulk_create(batch))
        if not count:
            raise DomainError(_why_nothing(project, kind, scope))
        transaction.on_commit(lambda: leases.dispatch_job(run))
    return run


def _questions(
    run: JudgeRun, prompts: dict[str, JudgePrompt], limit: int | None, about: Collection[int] | None
) -> Iterator[JudgeVerdict]:
    if run.kind == JudgeKind.PAIR:
        return _pairs(run, prompts, _drawn(run.project, run.scope, limit) if about is None else _named(run, about))
    return _responses(run, prompts, limit) if about is None else _named_responses(run, prompts, about)


def _named(run: JudgeRun, about: Collection[int]) -> QuerySet[Comparison]:
    return Comparison.objects.filter(pk__in=about, project=run.project).order_by("pk").select_related("prompt")


def _named_responses(run: JudgeRun, prompts: dict[str, JudgePrompt], about: Collection[int]) -> Iterator[JudgeVerdict]:
    rows = Response.objects.filter(pk__in=about, prompt__project=run.project).order_by("pk")
    for response, task in rows.values_list("pk", "prompt__task").iterator(_BATCH):
        yield JudgeVerdict(run=run, prompt=prompts.get(task.casefold(), prompts[""]), response_id=response)


def _batches(questions: Iterator[JudgeVerdict]) -> Iterator[list[JudgeVerdict]]:
    batch: list[JudgeVerdict] = []
    for question in questions:
        batch.append(question)
        if len(batch) >= _BATCH:
            yield batch
            batch = []
    if batch:
        yield batch


def comparisons_of(project: Project, scope: str) -> QuerySet[Comparison]:
    """Those of two responses that a run of this scope is about; gold items measure people and stay out."""
    found = Comparison.objects.filter(project=project, response_count=2, is_gold=False, is_withdrawn=False)
    voted = Exists(
        Judgment.objects.filter(comparison=OuterRef("pk"), superseded_at=None, round=0, annotator__is_human=True)
    )
    if scope == JudgeScope.VOTED:
        return found.filter(voted)
    return found.filter(~voted) if scope == JudgeScope.UNVOTED else found


def _drawn(project: Project, scope: str, limit: int | None) -> QuerySet[Comparison]:
    """A draw that anybody can repeat: in order of a digest of the ids."""
    order = MD5(Cast("pk", TextField()))
    found = comparisons_of(project, scope).order_by(order).select_related("prompt")
    return found[:limit] if limit else found


def _pairs(
    run: JudgeRun, prompts: dict[str, JudgePrompt], comparisons: QuerySet[Comparison]
) -> Iterator[JudgeVerdict]:
    for comparison in comparisons.only("prompt__task").iterator(_BATCH):
        prompt = prompts.get(comparison.prompt.task.casefold(), prompts[""])
        for is_swapped in (False, True):
            yield JudgeVerdict(run=run, prompt=prompt, comparison=comparison, is_swapped=is_swapped)


def _responses(run: JudgeRun, prompts: dict[str, JudgePrompt], limit: int | None) -> Iterator[JudgeVerdict]:
    """Each response once, however often it is compared; with a golden answer, where that is asked for."""
    is_golden = run.kind == JudgeKind.GOLDEN
    written = {}
    asked: set[int] = set()  # or not to be asked: what is a golden answer itself
    if is_golden:
        by_people = Response.objects.filter(prompt__project=run.project, source__kind=SourceKind.PERSON).order_by("pk")
        for pk, prompt_id, text in by_people.values_list("pk", "prompt", "text"):
            written[prompt_id] = text  # the newest
            asked.add(pk)
    rows = _drawn(run.project, run.scope, limit).values_list(
        "prompt", "prompt__task", "meta", "response_a", "response_b"
    )
    for prompt_id, task, meta, *responses in rows.iterator(_BATCH):
        reference = (written.get(prompt_id) or _reference_in(meta)) if is_golden else ""
        if is_golden and not reference:
            continue
        prompt = prompts.get(task.casefold(), prompts[""])
        for response in responses:
            if response not in asked:
                asked.add(response)
                yield JudgeVerdict(run=run, prompt=prompt, response_id=response, reference=reference)


def _reference_in(meta: Any) -> str:
    """The `reference` that an imported row gave beside its prompt."""
    reference = meta.get("reference") if isinstance(meta, dict) else None
    return reference.strip() if isinstance(reference, str) else ""


def _why_nothing(project: Project, kind: str, scope: str) -> str:
    if not comparisons_of(project, scope).exists():
        return gettext("%(name)s has no such comparisons of two responses; choose others") % {"name": project.name}
    return gettext(
        "no prompt of %(name)s has a golden answer: let somebody write one (the queue of rewrites), or import rows "
        "with a “reference”"
    ) % {"name": project.name}


def reopen_judge_run(run: JudgeRun, *, retry_failures: bool = False) -> bool:
    """Put a failed or cancelled run back into the queue, to ask what is still open.

    retry_failures: ask again where the answer could not be used; a finished run may be reopened for that. False where
    the run is under way.
    """
    with transaction.atomic():
        if not leases.reopen_job(run, even_succeeded=retry_failures):
            return False
        if retry_failures:
            failed = run.verdicts.exclude(outcome__in=[JudgeOutcome.OPEN, JudgeOutcome.USABLE])
            failed.update(outcome=JudgeOutcome.OPEN, note="", raw="", tries=0, seconds=None)
        transaction.on_commit(lambda: leases.dispatch_job(run))
    return True


def set_parallel(run: JudgeRun, parallel: int) -> None:
    """How many requests the run sends at a time from the next time on that it is taken up."""
    run.parallel = parallel
    run.clean_fields(exclude=["owner", "lease_expires_at", "created_by"])
    run.save(update_fields=["parallel"])


def judge_seed(judge: ResponseSource, verdict: JudgeVerdict, attempt: int) -> int:
    """The same for the same judge, question and try."""
    of = f"{judge.name}\n{verdict.prompt_id}\n{verdict.comparison_id}\n{verdict.response_id}\n{verdict.is_swapped}"
    return int.from_bytes(hashlib.sha256(f"{of}\n{attempt}".encode()).digest()[:4], "big") >> 1


def store_verdict(verdict: JudgeVerdict, *, reason: str = "", note: str = "", raw: str = "", **fields: Any) -> bool:
    """Keep what came of a question; False where something is kept already."""
    open_still = JudgeVerdict.objects.filter(pk=verdict.pk, outcome=JudgeOutcome.OPEN)
    kept = open_still.update(
        reason=storable(reason)[:RAW_CHARS_KEPT],
        note=storable(note)[:NOTE_CHARS_KEPT],
        raw=storable(raw)[:RAW_CHARS_KEPT],
        **fields,
    )
    return kept == 1


# ── Votes ────────────────────────────────────────────────────────────────────────────────────────────────────────


def take_votes(run: JudgeRun, card: Card, votes: dict[int, int], *, by: User | None = None) -> dict[str, int]:
    """Store a judge's verdicts as votes that are not a person's, if its card lets it stand in for people.

    votes: codes of rlhf.judges.card by comparison. Raises DomainError with the card's reasons where it does not.
    """
    if not card.may_stand_in:
        reasons = "; ".join(str(reason) for reason in card.reasons_in_words)
        raise DomainError(
            gettext("%(name)s may not stand in for people: %(reasons)s") % {"name": run.judge.name, "reasons": reasons}
        )
    preferences = {code: preference for preference, code in CODE_OF_PREFERENCE.items()}
    usable = {comparison: preferences[code] for comparison, code in votes.items() if code in preferences}
    evidence = {"judge_run": run.pk, "standard": asdict(card.standard), "comparisons": card.comparisons}
    if card.agreement and card.human:
        evidence |= {"agreement": card.agreement.value, "people_agree": card.human.value}
    stored = store_model_votes(run.project, run.voter_name, usable, user=by, **evidence)
    codes = list(votes.values())
    return {
        "votes": stored.new,
        "already_there": stored.already_there,
        "position_dependent": codes.count(DEPENDS),
        "unusable": codes.count(UNUSABLE),
    }
