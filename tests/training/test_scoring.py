"""A score belongs to a conversation, whatever shares its batch, its padding or its prompt."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rlhf.jobspec import BadDataError
from rlhf.options import SpecError
from tests.tiny_model import build_tiny_model
from tests.training.conftest import JobRunner, toy_rows

pytestmark = [pytest.mark.training, pytest.mark.slow]

# Ends with the end-of-turn token itself, which is the padding token too.
ENDS_WITH_PADDING_TOKEN = (
    "{% for message in messages %}{{ '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>' }}"
    "{% endfor %}"
)


@pytest.mark.parametrize("template", [None, ENDS_WITH_PADDING_TOKEN], ids=["chatml", "ends-with-padding-token"])
def test_scores_do_not_depend_on_padding_order_or_company(base: Path, tmp_path: Path, template: str | None) -> None:
    import torch
    from transformers import set_seed

    from rlhf.training import models
    from rlhf.training.scoring import score_pairs, token_ids
    from rlhf.training.shared_prompt import share_prompts

    directory = build_tiny_model(tmp_path, chat_template=template) if template else base
    tokenizer = models.load_tokenizer(directory)
    set_seed(3)
    model = models.load_reward_model(directory, tokenizer).eval()
    conversations = [row["prompt"] + row[side] for row in toy_rows("reward", 6) for side in ("chosen", "rejected")]
    conversations[3] = [*conversations[3], {"role": "user", "content": "Why? " * 30}, conversations[0][-1]]

    with torch.no_grad():
        alone = [
            model(torch.tensor([token_ids(tokenizer, messages)]), use_cache=False).logits.item()
            for messages in conversations
        ]
    assert max(alone) - min(alone) > 0.01  # or there would be nothing to confuse

    def in_pairs(order: list[int]) -> list[float]:
        pairs = [(conversations[a], conversations[b]) for a, b in zip(order[::2], order[1::2], strict=True)]
        flat = [score for pair in score_pairs(model, tokenizer, pairs, bf16=False) for score in pair]
        scores = [0.0] * len(order)
        for place, index in enumerate(order):
            scores[index] = flat[place]
        return scores

    order = list(range(len(conversations)))
    assert in_pairs(order) == pytest.approx(alone, abs=1e-5)
    assert in_pairs(order[::-1]) == pytest.approx(alone, abs=1e-5)
    assert share_prompts(model)
    assert in_pairs(order) == pytest.approx(alone, abs=1e-5)
    assert in_pairs(order[1:] + order[:1]) == pytest.approx(alone, abs=1e-5)


def test_sharing_prompts_changes_no_score_and_no_gradient(base: Path) -> None:
    import torch
    from transformers import set_seed

    from rlhf.training import models
    from rlhf.training.shared_prompt import Pairs, share_prompts

    tokenizer = models.load_tokenizer(base)
    # lengths 40 and 31 after 25 common tokens, one side the beginning of the other, and nothing in common
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(3, 200, (6, 40), generator=generator)
    ids[3, :25] = ids[0, :25]
    ids[4, :12] = ids[1, :12]
    mask = torch.ones_like(ids)
    for row, length in enumerate([40, 30, 22, 31, 12, 40]):
        mask[row, length:] = 0
        ids[row, length:] = tokenizer.pad_token_id
    packed = Pairs(ids, mask)
    assert packed.input_ids.shape == (3, 62)
    assert packed.position_ids[0, 38:48].tolist() == [38, 39, 25, 26, 27, 28, 29, 30, 31, 32]

    def scores_and_gradients(share: bool) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        set_seed(1)
        model = models.load_reward_model(base, tokenizer).train()
        if share:
            assert share_prompts(model)
            # row 2 shares nothing: without it the batch is worth packing
            assert Pairs.of(ids[[0, 1, 3, 4]], mask[[0, 1, 3, 4]], {}) is not None
        rows = [0, 1, 3, 4]
        scores = model(input_ids=ids[rows], attention_mask=mask[rows], use_cache=False).logits.squeeze(-1)
        scores[:2].sub(scores[2:]).square().sum().backward()
        return scores.detach(), {
            name: value.grad for name, value in model.named_parameters() if value.grad is not None
        }

    plain, plain_gradients = scores_and_gradients(share=False)
    shared, shared_gradients = scores_and_gradients(share=True)
    assert torch.allclose(plain, shared, atol=1e-5)
    assert plain_gradients.keys() == shared_gradients.keys()
    for name, gradient in plain_gradients.items():
        assert torch.allclose(gradient, shared_gradients[name], atol=1e-4 * gradient.abs().max()), name


def test_a_model_that_cannot_share_prompts_is_left_as_it_is() -> None:
    """Learned positions beyond a window: Mistral with a sliding window sees other tokens when packed."""
    import torch
    from transformers import MistralConfig, MistralForCausalLM

    from rlhf.training.shared_prompt import share_prompts

    torch.manual_seed(0)
    config = MistralConfig(
        vocab_size=64, hidden_size=32, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=2, sliding_window=4,
    )  # fmt: skip
    model = MistralForCausalLM(config)
    forward = model.base_model.forward
    assert not share_prompts(model)
    assert model.base_model.forward == forward


def test_a_file_of_responses_is_scored_in_place(jobs: JobRunner, base: Path, tmp_path: Path) -> None:
    from rlhf.training.score import score_file

    model = jobs.run("reward", "reward", epochs=2) / "model"
    rows = [
        {
            "id": row["id"],
            "prompt": row["prompt"],
            "responses": [row["rejected"][0]["content"], row["chosen"][0]["content"], "Thank you"][: 1 + number % 3],
        }
        for number, row in enumerate(toy_rows("reward", 6, start=50))
    ]
    rows.append({"id": "long", "prompt": rows[0]["prompt"], "responses": ["word " * 600]})
    source, out = tmp_path / "rows.jsonl", tmp_path / "out.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert score_file(model, source, out, bf16=False) == 7
    scored = [json.loads(line) for line in out.read_text().splitlines()]
    assert [row["id"] for row in scored] == [row["id"] for row in rows]
    assert [len(row["scores"]) for row in scored[:6]] == [1, 2, 3, 1, 2, 3]
    assert all(row["scores"][1] > row["scores"][0] for row in scored[:6] if len(row["scores"]) > 1)
    assert scored[6]["scores"] is None
    assert "the model reads at most 512" in scored[6]["error"]

    with pytest.raises(SpecError, match="scores need a reward model"):
        score_file(base, source, tmp_path / "none.jsonl", bf16=False)
    source.write_text('{"prompt": [{"role": "user", "content": "hello"}], "responses": [1]}\n')
    with pytest.raises(BadDataError, match=r"rows.jsonl line 1: a response is not a text"):
        score_file(model, source, tmp_path / "none.jsonl", bf16=False)
    assert not (tmp_path / "none.jsonl").exists()
