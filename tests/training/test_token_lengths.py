"""The count that the web side shows is the count that training sees."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rlhf.options import SpecError
from rlhf.token_lengths import TokenCounter, UncountableRowError
from tests.tiny_model import CHAT_TEMPLATE, build_tiny_model

pytestmark = [pytest.mark.training, pytest.mark.slow]

TEXTS = [
    "What is the answer?",
    "",
    "  leading, trailing and\n\n\tbroken lines \r\n",
    "Žluťoučký kůň úpěl ďábelské ódy, naïve façade, ﬁne",
    "你好，世界。日本語のテキスト 한국어",
    "مرحبا بالعالم שלום עולם",
    "👩‍👩‍👧‍👦 flags 🇨🇿 and\u200bzero\u00a0width e\u0301",
    "code: `x = {'a': 1}` {{ not jinja }} {% nor this %} <b>&amp;</b>",
    "<|im_end|>\n<|im_start|>system\nspecial tokens that a person typed <|endoftext|>",
]


def conversations() -> list[list[dict[str, str]]]:
    single = [[{"role": "user", "content": text}, {"role": "assistant", "content": text[::-1]}] for text in TEXTS]
    turns = [{"role": role, "content": text} for role, text in zip(["user", "assistant"] * 5, TEXTS, strict=False)]
    with_system = [{"role": "system", "content": "Answer in one word."}, *turns]
    return [*single, turns, with_system, turns[:1]]


GENERATION_TAGS = (
    "{% for message in messages %}{{ bos_token if loop.first }}[{{ message.role }}] "
    "{% if message.role == 'assistant' %}{% generation %}{{ message.content }}{{ eos_token }}{% endgeneration %}"
    "{% else %}{{ message | tojson }}{% endif %}\n{% if loop.index > 40 %}{% break %}{% endif %}{% endfor %}"
)


@pytest.mark.parametrize("template", [None, GENERATION_TAGS], ids=["chatml", "generation-tags"])
def test_counts_equal_those_of_transformers(base: Path, tmp_path: Path, template: str | None) -> None:
    from transformers import AutoTokenizer

    directory = build_tiny_model(tmp_path, chat_template=template) if template else base
    tokenizer = AutoTokenizer.from_pretrained(directory)
    counter = TokenCounter(directory)
    for messages in conversations():
        assert counter.render(messages) == tokenizer.apply_chat_template(messages, tokenize=False)
        assert counter.count(messages) == len(tokenizer.apply_chat_template(messages, return_dict=False))


def test_a_row_counts_its_longest_side(base: Path) -> None:
    counter = TokenCounter(base)
    prompt = [{"role": "user", "content": "hello"}]
    short, long = ([{"role": "assistant", "content": "word " * count}] for count in (2, 20))
    assert counter.count_row({"prompt": prompt, "chosen": short, "rejected": long}) == counter.count(prompt + long)
    assert counter.count_row({"prompt": prompt, "completion": short}) == counter.count(prompt + short)


def test_the_older_place_of_a_template_is_read(base: Path, tmp_path: Path) -> None:
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / name).write_bytes((base / name).read_bytes())
    messages = [{"role": "user", "content": "hello"}]
    with pytest.raises(SpecError, match="has no chat template"):
        TokenCounter(tmp_path)

    config = json.loads((tmp_path / "tokenizer_config.json").read_text())
    config["chat_template"] = [{"name": "default", "template": (base / "chat_template.jinja").read_text()}]
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    assert TokenCounter(tmp_path).count(messages) == TokenCounter(base).count(messages)


def test_what_a_template_refuses_is_said(base: Path, tmp_path: Path) -> None:
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / name).write_bytes((base / name).read_bytes())
    (tmp_path / "chat_template.jinja").write_text("{{ raise_exception('roles must alternate') }}")
    with pytest.raises(UncountableRowError, match="roles must alternate"):
        TokenCounter(tmp_path).count([{"role": "user", "content": "hello"}])
    (tmp_path / "chat_template.jinja").write_text("{% for %}")
    with pytest.raises(SpecError, match="cannot be parsed"):
        TokenCounter(tmp_path)
    (tmp_path / "chat_template.jinja").write_text("{{ ''.__class__.__mro__ }}")
    with pytest.raises(UncountableRowError, match="unsafe"):
        TokenCounter(tmp_path).count([])


@pytest.mark.parametrize("opening", ["assistant\n", "assistant\n<think>"], ids=["prefix", "moved"])
def test_the_loss_begins_where_trl_begins_it(tmp_path: Path, opening: str) -> None:
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import SFTConfig, SFTTrainer

    template = CHAT_TEMPLATE.replace("assistant\n' }}{% endif %}", opening + "' }}{% endif %}")
    directory = build_tiny_model(tmp_path / "model", chat_template=template)
    rows = [
        {"prompt": [{"role": "user", "content": text}], "completion": [{"role": "assistant", "content": text[::-1]}]}
        for text in TEXTS
    ]
    trainer = SFTTrainer(
        model=AutoModelForCausalLM.from_pretrained(directory),
        args=SFTConfig(output_dir=str(tmp_path / "out"), use_cpu=True, report_to="none", max_length=None),
        train_dataset=Dataset.from_list(rows),
        processing_class=AutoTokenizer.from_pretrained(directory),
    )
    counter = TokenCounter(directory)
    for row, prepared in zip(rows, trainer.train_dataset, strict=True):
        trained = counter.learnt_from(row["prompt"], row["completion"])
        assert trained.start == next(place for place, label in enumerate(prepared["labels"]) if label != -100)
        assert len(trained.tokens) == len(prepared["input_ids"])
        assert "".join(token.text for token in trained.tokens) == counter.render(row["prompt"] + row["completion"])
        assert trained.prompt_is_prefix == (opening == "assistant\n")
