"""What a worker does with a run of a benchmark: have every item answered, then every answer judged.

Answers and judgments are stored one by one as they come, so a crash loses only what was under way. Each item ends in
an answer or a stated failure, and each answer in a judgment or a stated failure; nothing is left out silently.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from annotation.models import ResponseSource
from rlhf import benchmark_figures as figures
from rlhf.asking import AskedInVainError, Endpoint
from rlhf.asking_work import AskingWork, see_through
from rlhf.benchmark_questions import Histories, Question, Step, steps_of
from rlhf.evaluation.fb_bench import Failure, UnusableJudgmentError, Verdict
from rlhf.models import BenchmarkAnswer, BenchmarkItem, BenchmarkRun, Checklist, Checkpoint
from rlhf.options import SpecError
from rlhf.services import benchmarks
from rlhf.token_lengths import TokenCounter, UncountableRowError

logger = logging.getLogger(__name__)

TOKENS_KEPT_FREE = 100
"""The authors' margin between prompt and answer."""


def run_benchmark(run_id: int) -> bool:
    """Run a queued run to its end; False where there was nothing to claim."""
    return see_through(BenchmarkRun, run_id, _do, figures.report_of)


def _do(run: BenchmarkRun, asking: AskingWork) -> None:
    work = _Work(run, asking)
    work.answer_all()
    if run.judge is not None:
        work.judge_all(run.judge)


class _Work:
    def __init__(self, run: BenchmarkRun, asking: AskingWork) -> None:
        self.run = run
        self.asking = asking
        self.checklists = {
            checklist.item_id: checklist
            for checklist in Checklist.objects.filter(item__data_set=run.data_set_id).order_by("version")
        }  # the newest version of each wins

    def answer_all(self) -> None:
        """Ask the source for every answer that is missing."""
        if self.run.answers_from_id:
            return
        endpoint = Endpoint(self.run.source, self.asking.stop)
        budget = TokenBudget.of(self.run)

        def answer(step: Step) -> Callable[[], Step | None]:
            asked = step.messages
            sampling: dict[str, Any] = {"temperature": step.temperature}
            seed = benchmarks.benchmark_seed(self.run.source, step.item)
            fields: dict[str, Any]
            try:
                sampling["max_tokens"] = budget.tokens_for(asked)
                completion = endpoint.ask(asked, sampling=sampling, seed=seed)
            except (AskedInVainError, TooLongError) as failure:
                fields = {"error": benchmarks.storable(str(failure))}
            else:
                fields = {
                    "text": completion.text,
                    "finish_reason": completion.finish_reason,
                    "seconds": completion.seconds,
                }

            def store() -> Step | None:
                benchmarks.store_answer(self.run, step.item, sampling={**sampling, "seed": seed}, **fields)
                if "error" not in fields:
                    return step.next(fields["text"])
                self._leave_unanswered(step.after)
                return None

            return store

        steps = []
        for step, unreachable in steps_of(self.run):
            self._leave_unanswered(unreachable)
            if step:
                steps.append(step)
        # Shuffled, the same way each time: what is left is then like what is done, and the estimate of the time holds.
        shuffled = sorted(steps, key=lambda step: step.item.key)
        self.asking.do_all(endpoint, answer, shuffled, follow=lambda step: step)

    def _leave_unanswered(self, turns: Sequence[BenchmarkItem]) -> None:
        for item in turns:
            benchmarks.store_answer(self.run, item, error="an earlier turn of this session has no answer")

    def judge_all(self, judge_source: ResponseSource) -> None:
        """Have the judge tick every answer that it has not ticked yet."""
        self.judge = judge_source
        endpoint = Endpoint(self.judge, self.asking.stop)
        kind, histories = self.run.data_set.kind, Histories(self.run)  # not in the threads: they have no database

        def judge(answer: BenchmarkAnswer) -> Callable[[], object]:
            checklist = self.checklists[answer.item_id]
            history = histories.before(answer.item)
            question = Question.of(kind, self.run.prompt_language, answer, checklist, history)
            outcome = self._judge(endpoint, answer, question)

            return lambda: benchmarks.store_judgment(self.run, answer, checklist, **outcome)

        missing = (
            BenchmarkAnswer.objects.filter(run=self.run.answering_run_id, item__dropped_at=None)
            .exclude(item__judgments__run=self.run)
            .select_related("item")
            .order_by("item__key")
        )
        self.asking.do_all(endpoint, judge, missing)

    def _judge(self, endpoint: Endpoint, answer: BenchmarkAnswer, question: Question) -> dict[str, Any]:
        """What `store_judgment` keeps of up to so many tries."""
        if answer.error:
            return {"failure": Failure.NO_ANSWER, "note": answer.error, "attempts": 0}
        sampling = {"temperature": 0.0, "max_tokens": self.run.judge_max_tokens}
        seconds = 0.0
        failed: dict[str, Any] = {}
        for attempt in range(1, self.run.judge_attempts + 1):
            seed = benchmarks.benchmark_seed(self.judge, answer.item, attempt)
            try:
                completion = endpoint.ask(question.messages, sampling=sampling, seed=seed)
            except AskedInVainError as failure:
                if question.may_be_repetitive and is_about_repetitions(failure):
                    verdicts = [Verdict(False) for _ in self.checklists[answer.item_id].criteria]
                    return {"verdicts": verdicts, "is_repetitive": True, "note": str(failure), "attempts": attempt}
                # The endpoint has tried on its own already; the same request would be refused again.
                kind = Failure.REFUSED if failure.was_refused else Failure.UNREADABLE
                return {"failure": kind, "note": str(failure), "attempts": attempt, "seconds": seconds}
            seconds += completion.seconds
            kept = {"raw": completion.text, "attempts": attempt, "seconds": seconds}
            try:
                return {"verdicts": question.read(completion.text), **kept}
            except UnusableJudgmentError as error:
                failed = {"failure": error.failure, "note": str(error), **kept}
        return failed


def is_about_repetitions(failure: AskedInVainError) -> bool:
    return failure.was_refused and "repetitive pattern" in str(failure).lower()


class TooLongError(Exception):
    """The conversation leaves no room for an answer, or the model's chat template refuses it."""


class TokenBudget:
    """How many tokens an answer may have: the run's cap, or less where the model reads no more.

    Only a checkpoint of our own has its tokenizer here; what others read, their servers know.
    """

    def __init__(self, cap: int, counter: TokenCounter | None = None, context: int = 0) -> None:
        self.cap, self.counter, self.context = cap, counter, context

    @classmethod
    def of(cls, run: BenchmarkRun) -> TokenBudget:
        checkpoint = Checkpoint.objects.filter(source=run.source).first()
        if checkpoint is None or run.source.base_url:
            return cls(run.max_tokens)
        try:
            config = json.loads((Path(checkpoint.path) / "config.json").read_text(encoding="utf-8"))
            context = config.get("max_position_embeddings")
            counter = TokenCounter(Path(checkpoint.path))
        except (OSError, ValueError, SpecError) as error:
            logger.warning("tokens are not counted: source=%s error=%s", run.source_id, error)
            return cls(run.max_tokens)
        return cls(run.max_tokens, counter, context) if isinstance(context, int) else cls(run.max_tokens)

    def tokens_for(self, messages: list[dict[str, str]]) -> int:
        """Source: FB-Bench, gen_answer: min(cap, context − prompt − 100). Raises TooLongError."""
        if self.counter is None:
            return self.cap
        try:
            prompt = self.counter.count(messages)
        except UncountableRowError as error:
            raise TooLongError(str(error)) from None
        room = self.context - prompt - TOKENS_KEPT_FREE
        if room < 1:
            raise TooLongError(
                f"the conversation has {prompt} tokens and the model reads {self.context}: no room for an answer"
            )
        return min(self.cap, room)
