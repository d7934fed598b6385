"""The base model's files, its chat template and its special tokens."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from annotation.models import Response
from rlhf.models import Checkpoint
from rlhf.preflight.findings import Finding, blocked, passed, warned
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
