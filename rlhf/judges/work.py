"""What a worker does with a judge's run: ask what is open, and keep each answer, or why it cannot be used."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rlhf.asking import AskedInVainError, Endpoint
from rlhf.asking_work import AskingWork, see_through
from rlhf.judges.card import make_card
from rlhf.judges.reading import UnusableVerdictError, read_finding
from rlhf.judges.verdicts import report_of, verdicts_of_run
from rlhf.judges.wording import form_of, judge_messages, side_of, written_out
from rlhf.models import JudgeKind, JudgeOutcome, JudgePrompt, JudgeRun, JudgeVerdict
from rlhf.services import judging

_AT_ONCE = 500
"""Questions read from the database at a time: their texts are long."""


def run_judge(run_id: int) -> bool:
    """Run a queued run to its end; False where there was nothing to claim."""
    return see_through(JudgeRun, run_id, _ask_all, _report_with_card)


def _report_with_card(run: JudgeRun) -> dict[str, Any]:
    card = make_card(run.project, verdicts_of_run(run))
    return report_of(run) | {"card": card.as_json()}


def _ask_all(run: JudgeRun, asking: AskingWork) -> None:
    endpoint = Endpoint(run.judge, asking.stop)
    prompts = JudgePrompt.objects.in_bulk(run.prompt_ids)

    def ask(verdict: JudgeVerdict) -> Callable[[], object]:
        found = _asked(endpoint, run, verdict, prompts[verdict.prompt_id])
        return lambda: judging.store_verdict(verdict, **found)

    while questions := _open_questions(run):
        asking.do_all(endpoint, ask, questions)


def _open_questions(run: JudgeRun) -> list[JudgeVerdict]:
    """With all that asking needs: the threads have no database connection."""
    of_pair = ("comparison__prompt", "comparison__response_a", "comparison__response_b")
    texts = of_pair if run.kind == JudgeKind.PAIR else ("response__prompt",)
    return list(run.verdicts.filter(outcome=JudgeOutcome.OPEN).select_related(*texts).order_by("pk")[:_AT_ONCE])


def messages_of(run: JudgeRun, verdict: JudgeVerdict, prompt: JudgePrompt) -> list[dict[str, str]]:
    """What the judge is asked."""
    language = run.language
    parts = {"form": form_of(run.kind, language, asks_sameness=prompt.asks_sameness)}
    if verdict.comparison is not None:
        sides = [verdict.comparison.response_a, verdict.comparison.response_b]
        if verdict.is_swapped:
            sides.reverse()
        parts["conversation"] = written_out(verdict.comparison.prompt.messages, language)
        for name, side in zip(("response_a", "response_b"), sides, strict=True):
            parts[name] = side_of(side.text, side.messages, language)
    else:
        assert verdict.response is not None  # a constraint
        parts["conversation"] = written_out(verdict.response.messages or verdict.response.prompt.messages, language)
        parts |= {"response": verdict.response.text, "reference": verdict.reference}
    return judge_messages(prompt.text, parts)


def _asked(endpoint: Endpoint, run: JudgeRun, verdict: JudgeVerdict, prompt: JudgePrompt) -> dict[str, Any]:
    """What `store_verdict` keeps of up to so many tries."""
    asked = messages_of(run, verdict, prompt)
    sampling = {"temperature": 0.0, "max_tokens": run.max_tokens}
    seconds = 0.0
    failed: dict[str, Any] = {}
    for attempt in range(1, run.attempts + 1):
        seed = judging.judge_seed(run.judge, verdict, attempt)
        try:
            completion = endpoint.ask(asked, sampling=sampling, seed=seed)
        except AskedInVainError as failure:
            # The endpoint has tried on its own already; the same request would be refused again.
            outcome = JudgeOutcome.REFUSED if failure.was_refused else JudgeOutcome.UNREADABLE
            return {"outcome": outcome, "note": str(failure), "tries": attempt, "seconds": seconds}
        seconds += completion.seconds
        kept = {"raw": completion.text, "tries": attempt, "seconds": seconds}
        try:
            finding = read_finding(completion.text, run.kind, run.language, asks_sameness=prompt.asks_sameness)
        except UnusableVerdictError as error:
            failed = {"outcome": JudgeOutcome(error.outcome), "note": str(error), **kept}
            continue
        other = {"a": "b", "b": "a"} if verdict.is_swapped else {}
        return {
            "outcome": JudgeOutcome.USABLE,
            "preference": other.get(finding.preference, finding.preference),
            "score": finding.score,
            "same_result": finding.same_result,
            "same_reasoning": finding.same_reasoning,
            "reason": finding.reason,
            **kept,
        }
    return failed
