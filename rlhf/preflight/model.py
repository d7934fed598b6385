"""The base model's files, its chat template and its special tokens."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator
from typing import Any

from annotation.models import Comparison, FurtherResponse, Response
from rlhf.models import Checkpoint
from rlhf.preflight.findings import Finding, blocked, passed, warned
from rlhf.preflight.rows import Row
from rlhf.token_lengths import TokenCounter


def check_tokens(counter: TokenCounter) -> Iterator[Finding]:
    """What the tokenizer pads and ends with."""
    end, padding = counter.end_of_text, counter.padding
    if end is None:
        yield blocked("no_end")
    elif padding is None:
        yield warned("no_padding", token=end)
    elif padding == end:
        yield warned("padding_is_end", token=end)
    else:
        yield passed("padding", padding=padding, end=end)


def check_template(base: Checkpoint, counter: TokenCounter, reward_model: str) -> Iterator[Finding]:
    """One template for training, for serving and for the reward model, if one reads what this model writes."""
    sha256 = counter.template_sha256
    yield passed("template", sha256=sha256[:12])
    if base.source is not None:
        served = _served_with(base)
        if served and served != {sha256}:
            yield blocked("served_otherwise", name=base.source.name, sha256=_short(served), base=sha256[:12])
        elif served:
            yield passed("served_alike", name=base.source.name)
    if reward_model:  # one with another template was refused when it was found
        yield passed("read_alike", name=reward_model)


def _served_with(base: Checkpoint) -> set[str]:
    """Hashes of the templates that the base's own responses were written with."""
    recorded: Any = Response.objects.filter(source=base.source).exclude(template_sha256="")
    return set(recorded.values_list("template_sha256", flat=True).distinct())


def _short(hashes: set[str]) -> str:
    return ", ".join(sorted(one[:12] for one in hashes))


_LOOKED_UP_TOGETHER = 2000


class WrittenWith:
    """The chat templates that the responses of training rows were written with, as far as they were recorded."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._waiting: list[tuple[int, str]] = []
        """Comparison, and the sha256 of a response's text."""

    def add(self, row: Row) -> None:
        for side in ("completion", "chosen", "rejected"):
            if side in row:
                text = row[side][-1]["content"]
                self._waiting.append((row["id"], hashlib.sha256(text.encode()).hexdigest()))
        if len(self._waiting) >= _LOOKED_UP_TOGETHER:
            self._look_up()

    def _look_up(self) -> None:
        comparisons = {comparison for comparison, _ in self._waiting}
        recorded: dict[tuple[int, str], str] = {}
        for side in ("response_a", "response_b"):
            found = Comparison.objects.filter(pk__in=comparisons)
            fields = "pk", f"{side}__text_sha256", f"{side}__template_sha256"
            recorded |= {(pk, text): template for pk, text, template in found.values_list(*fields)}
        further = FurtherResponse.objects.filter(comparison__in=comparisons)
        fields = "comparison_id", "response__text_sha256", "response__template_sha256"
        recorded |= {(pk, text): template for pk, text, template in further.values_list(*fields)}
        self._counts.update(recorded.get(one, "") for one in self._waiting)
        self._waiting = []

    def check(self, base_sha256: str) -> Iterator[Finding]:
        """Against the template of the base, with which the rows are rendered."""
        self._look_up()
        known = Counter({sha256: count for sha256, count in self._counts.items() if sha256})
        total, unknown = self._counts.total(), self._counts[""]
        if others := known.total() - known[base_sha256]:
            counts = {sha256[:12]: count for sha256, count in known.most_common() if sha256 != base_sha256}
            yield warned("written_otherwise", count=others, total=total, base=base_sha256[:12], templates=counts)
        elif known:
            yield passed("written_alike", count=known.total(), unknown=unknown)
        elif unknown:
            yield passed("written_unknown", count=unknown)
