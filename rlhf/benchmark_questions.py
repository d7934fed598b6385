"""What models and judges are asked in a run, whatever the benchmark."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from rlhf.evaluation import constraint_judge, fb_bench, fb_bench_judge
from rlhf.models import Benchmark, BenchmarkAnswer, BenchmarkItem, BenchmarkRun, Checklist

Said = tuple[str, str]
"""A question and the model's own answer to it."""


@dataclass(frozen=True)
class Step:
    """An item to answer, what was said before it, and the turns of its session that come after."""

    item: BenchmarkItem
    before: tuple[Said, ...] = ()
    after: tuple[BenchmarkItem, ...] = ()

    @property
    def messages(self) -> list[dict[str, str]]:
        if self.item.scenario:
            return self.item.as_item([]).messages
        messages = []
        if system := self.item.details.get("system"):
            messages.append({"role": "system", "content": system})
        for question, answer in self.before:
            messages += [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
        return [*messages, {"role": "user", "content": self.item.query}]

    @property
    def temperature(self) -> float:
        """FB-Bench's authors say how; those of the others leave it to each endpoint, so that 0 repeats best."""
        return fb_bench.temperature_of(self.item.task) if self.item.scenario else 0.0

    def next(self, answer: str) -> Step | None:
        if not self.after:
            return None
        return Step(self.after[0], (*self.before, (self.item.query, answer)), self.after[1:])


def steps_of(run: BenchmarkRun) -> Iterator[tuple[Step | None, Sequence[BenchmarkItem]]]:
    """Where to go on: each item without an answer, but of a session only the first such turn.

    Beside it the turns that cannot be asked, because one before them was given no answer.
    """
    answers = {answer.item_id: answer for answer in run.answers.all()}
    conversations: dict[object, list[BenchmarkItem]] = defaultdict(list)
    for item in BenchmarkItem.objects.kept().filter(data_set=run.data_set_id):
        conversations[item.session or f"item {item.pk}"].append(item)
    for turns in conversations.values():
        before: list[Said] = []
        for place, item in enumerate(turns):
            answer = answers.get(item.pk)
            rest = turns[place + 1 :]
            if answer is None:
                yield Step(item, tuple(before), tuple(rest)), ()
                break
            if answer.error:
                yield None, [later for later in rest if later.pk not in answers]
                break
            before.append((item.query, answer.text))


class Histories:
    """What was said in each session of a run, or in one of them."""

    def __init__(self, run: BenchmarkRun, session: int | None = None) -> None:
        self._said: dict[int | None, list[tuple[int, Said]]] = defaultdict(list)
        answers = BenchmarkAnswer.objects.filter(run=run.answering_run_id, item__session__isnull=False)
        if session is not None:
            answers = answers.filter(item__session=session)
        for session, turn, question, answer in answers.order_by("item__position").values_list(
            "item__session", "item__turn", "item__query", "text"
        ):
            self._said[session].append((turn or 0, (question, answer)))

    def before(self, item: BenchmarkItem) -> list[Said]:
        return [said for turn, said in self._said.get(item.session, []) if turn < (item.turn or 0)]


@dataclass(frozen=True)
class Question:
    """What a judge is asked about an answer, and how what it says is read."""

    messages: list[dict[str, str]]
    read: Callable[[str], tuple[fb_bench.Verdict, ...]]
    """Raises UnusableJudgmentError."""
    may_be_repetitive: bool
    """Whether an endpoint that refuses the answer for its repetitions makes it worth 0, as FB-Bench's authors do."""

    @classmethod
    def of(
        cls, kind: str, language: str, answer: BenchmarkAnswer, checklist: Checklist, history: Sequence[Said]
    ) -> Question:
        if kind == Benchmark.FB_BENCH:
            item = answer.item.as_item(checklist.criteria)
            messages = fb_bench_judge.judge_messages(item, answer.text, language)
            return cls(messages, partial(fb_bench_judge.read_judgment, item=item), True)
        exercise = answer.item.as_exercise(checklist.criteria)
        messages = constraint_judge.judge_messages(exercise, answer.text, language, history)
        return cls(messages, partial(constraint_judge.read_judgment, exercise=exercise), False)
