"""What a training process shows of itself, beside its numbers: one line of insights.jsonl for each thing and step.

    hardware     step 0: processes, device
    first_batch  step 0: row_count, rows [{side, tokens, in_loss, padding, cut, parts [[text, in_loss, is_special]]}]
    samples      seconds, rows [{prompt, text, tokens, is_cut}] of a policy, which writes greedily,
                 or rows [{prompt, chosen, rejected, scores}] of a reward model
    extremes     measure ("margin", "reward" or "loss"), counted, best and worst [{value, prompt, …}]
                 at step 0, for most policies, instead: reference [[log p of each side]], what later ones are held to
                 of an on-policy method at each evaluation: measure "sampled", rows {value, prompt, text, tokens}

Everything is bounded: some prompts, some tokens. The rows come from eval.jsonl itself, in its order, so that they are
the same at every step and for every method.
"""

from __future__ import annotations

import contextlib
import json
import math
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from trl.models import unwrap_model_for_generation

from rlhf.jobspec import EVAL_FILE, INSIGHTS_FILE, SHOWN_CHARACTERS
from rlhf.token_lengths import TokenCounter, UncountableRowError
from rlhf.training.padding import padded
from rlhf.training.rows import is_conversation, parsed_lines
from rlhf.training.scoring import score_pairs, token_ids

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from rlhf.training.job import Job

BATCH_ROWS, BATCH_TOKENS = 16, 2000
ROWS_COMPARED, TOKENS_COMPARED = 64, 4000
"""Held-out rows among which the best and worst are sought: so many at most, of so many tokens altogether."""
ROWS_SHOWN = 6
_TOKENS_PER_PASS = 1024

Row = dict[str, Any]
_SIDES = (("chosen", "rejected"), ("completion",))


class Insights:
    """Shows the first batch, fixed samples and the best and worst held-out rows of one run."""

    def __init__(self, job: Job, tokenizer: PreTrainedTokenizerBase, *, scores: bool) -> None:
        """`scores`: the model is a reward model, which scores texts rather than writes them."""
        self.job = job
        self.tokenizer = tokenizer
        self.scores = scores
        self.shown_at = -1
        self._batch_is_shown = not job.is_main or bool(job.spec.resume_from)
        self._prompts: list[Row] = []
        self._rows: list[Row] = []
        self._reference: list[list[float]] | None = None
        self._judged: list[tuple[float, Row]] = []
        if job.spec.options.sample_prompts:
            self._choose_rows()

    def _choose_rows(self) -> None:
        counter = TokenCounter(self.job.base)
        seen: set[str] = set()
        tokens = 0
        for _, row in parsed_lines(self.job.directory / EVAL_FILE):
            sides = next((sides for sides in _SIDES if all(is_conversation(row.get(side)) for side in sides)), ())
            if not is_conversation(row.get("prompt")):
                continue
            kept = {key: row[key] for key in ("prompt", *sides)}
            try:
                length = counter.count_row(kept) if sides else counter.count(row["prompt"])
            except UncountableRowError:
                continue
            if length > self.job.spec.options.max_tokens:
                continue
            key = json.dumps(row["prompt"])
            if len(self._prompts) < self.job.spec.options.sample_prompts and key not in seen:
                seen.add(key)
                self._prompts.append(kept)
            tokens += length * max(1, len(sides))
            if sides and len(self._rows) < ROWS_COMPARED and (tokens <= TOKENS_COMPARED or not self._rows):
                self._rows.append(kept | {"label": row.get("label", True)})

    # ── The first batch ──────────────────────────────────────────────────────────────────────────────────────────

    def show_batch(self, inputs: Any) -> None:
        """The batch as the model is about to see it; only the first one is shown."""
        if self._batch_is_shown or not isinstance(inputs, Mapping):
            return
        laid_out = _lay_out(inputs)
        if laid_out is None:
            return
        self._batch_is_shown = True
        ids, attended, in_loss, sides = laid_out
        rows = [
            self._batch_row(ids[row], attended[row], in_loss[row], sides[row])
            for row in range(min(len(ids), BATCH_ROWS))
        ]
        self._write("first_batch", 0, rows=rows, row_count=len(ids))

    def _batch_row(self, ids: torch.Tensor, attended: torch.Tensor, in_loss: torch.Tensor, side: str) -> Row:
        kept = attended.bool()
        tokens, marks = ids[kept].tolist(), in_loss[kept].tolist()
        special = set(self.tokenizer.all_special_ids)
        parts: list[tuple[list[int], bool, bool]] = []
        for token, mark in zip(tokens[:BATCH_TOKENS], marks, strict=False):
            kind = (bool(mark), token in special)
            if parts and parts[-1][1:] == kind and not kind[1]:
                parts[-1][0].append(token)
            else:
                parts.append(([token], *kind))
        return {
            "side": side,
            "tokens": len(tokens),
            "in_loss": int(sum(map(bool, marks))),
            "padding": int((~kept).sum()),
            "cut": max(0, len(tokens) - BATCH_TOKENS),
            "parts": [
                [_shown(str(self.tokenizer.decode(part))), mark, is_special] for part, mark, is_special in parts
            ],
        }

    # ── Samples and extremes ─────────────────────────────────────────────────────────────────────────────────────

    def show(self, model: torch.nn.Module, accelerator: Any, step: int, *, extremes: bool) -> None:
        """Samples of the model as it stands and, where asked for, the best and worst rows. Every rank takes part."""
        if self.shown_at == step or not self._prompts:
            return
        self.shown_at = step
        began = time.monotonic()
        with (
            torch.random.fork_rng(),
            torch.no_grad(),
            unwrap_model_for_generation(model, accelerator) as unwrapped,
            _evaluating(unwrapped),
        ):
            if self.scores:
                self._show_scores(unwrapped, step)
            else:
                self._show_samples(unwrapped, step)
                if extremes and self._rows:
                    self._show_extremes(unwrapped, step)
        if self.job.is_main:
            print(f"step {step}: samples took {time.monotonic() - began:.1f} s", flush=True)

    def _show_scores(self, model: Any, step: int) -> None:
        began = time.monotonic()
        rows = [row for row in self._rows if "chosen" in row]
        pairs = [(row["prompt"] + row["chosen"], row["prompt"] + row["rejected"]) for row in rows]
        bf16 = self.job.spec.options.bf16
        scores = score_pairs(model, self.tokenizer, pairs, bf16=bf16, on_pass=self.job.heartbeat)
        scored = [_texts(row) | {"scores": list(map(_finite, pair))} for row, pair in zip(rows, scores, strict=True)]
        count = self.job.spec.options.sample_prompts
        self._write("samples", step, seconds=time.monotonic() - began, rows=scored[:count])
        values = [chosen - rejected for chosen, rejected in scores]
        self._write_extremes(step, "margin", values, scored)

    def _show_samples(self, model: Any, step: int) -> None:
        began = time.monotonic()
        options = self.job.spec.options
        device = next(model.parameters()).device
        asked: list[Any] = [
            self.tokenizer.apply_chat_template(
                row["prompt"], add_generation_prompt=True, tokenize=True, return_dict=False
            )
            for row in self._prompts
        ]
        ids, attended = padded(asked, self.tokenizer.pad_token_id, side="left", device=device)
        torch.manual_seed(options.seed)
        with torch.autocast(device.type, torch.bfloat16, enabled=options.bf16):
            written = model.generate(
                input_ids=ids,
                attention_mask=attended,
                max_new_tokens=options.sample_tokens,
                do_sample=False,
                temperature=None,
                top_p=None,
                top_k=None,
                use_cache=True,
                pad_token_id=self.tokenizer.pad_token_id,
            )[:, ids.shape[1] :]  # (prompts, new tokens)
        self.job.heartbeat()
        ends = _ids_of_end(model, self.tokenizer)
        rows = []
        for row, tokens in zip(self._prompts, written.tolist(), strict=True):
            length = next((at for at, token in enumerate(tokens) if token in ends), len(tokens))
            text = str(self.tokenizer.decode(tokens[:length], skip_special_tokens=True))
            sample = {"text": _shown(text), "tokens": length, "is_cut": length == len(tokens)}
            rows.append({"prompt": _readable(row["prompt"])} | sample)
        self._write("samples", step, seconds=time.monotonic() - began, rows=rows)

    def _show_extremes(self, model: Any, step: int) -> None:
        """The rows that the model learnt best and worst: by margin, by reward or by loss, as its method has it."""
        sides = [side for side in ("chosen", "rejected", "completion") if side in self._rows[0]]
        rows = [row for row in self._rows if all(side in row for side in sides)]
        log_probabilities = [[self._log_probability(model, row, side) for side in sides] for row in rows]
        method = self.job.spec.method
        if step == 0 and method != "sft":
            self._reference = [[total for total, _ in row] for row in log_probabilities]
            self._write("extremes", 0, reference=[[_finite(total) for total in row] for row in self._reference])
            return
        values: list[float]
        if method == "sft" or (reference := self._reference or self._stored_reference(len(rows))) is None:
            measure, values = "loss", [-total / max(count, 1) for ((total, count), *_) in log_probabilities]
        else:
            beta = getattr(self.job.spec.options, "beta", 1.0)
            rewards = [
                [beta * (total - before) for (total, _), before in zip(now, base, strict=True)]
                for now, base in zip(log_probabilities, reference, strict=True)
            ]
            measure = "margin" if len(sides) == 2 else "reward"
            values = [
                row[0] - row[1] if len(row) == 2 else row[0] * (1 if rows[index]["label"] else -1)
                for index, row in enumerate(rewards)
            ]
        self._write_extremes(step, measure, values, [_texts(row) for row in rows])

    def judge(self, completions: Iterable[tuple[list[Row], str, int, float]]) -> None:
        """Take in (prompt, text, tokens, reward) of held-out completions of the evaluation that is under way."""
        if self._prompts:
            self._judged += [
                (reward, {"prompt": _readable(prompt), "text": _shown(text), "tokens": tokens})
                for prompt, text, tokens, reward in completions
            ]

    def show_judged(self, step: int) -> None:
        """The best and worst of the completions that an evaluation sampled, now that it is over."""
        if self._judged:
            values, rows = zip(*self._judged, strict=True)
            self._judged = []
            self._write_extremes(step, "sampled", list(values), list(rows))

    def show_hardware(self) -> None:
        device = torch.cuda.get_device_name(0) if torch.cuda.is_available() else "CPU"
        self._write("hardware", 0, processes=self.job.world_size, device=device)

    def _write_extremes(self, step: int, measure: str, values: list[float], rows: list[Row]) -> None:
        placed = sorted(
            ((value, row) for value, row in zip(values, rows, strict=True) if math.isfinite(value)),
            key=lambda pair: -pair[0] if measure == "loss" else pair[0],
        )
        listed = [{"value": value} | row for value, row in placed]
        count = min(ROWS_SHOWN, (len(listed) + 1) // 2)
        best = listed[::-1][: min(count, len(listed) - count)]
        self._write("extremes", step, measure=measure, counted=len(listed), worst=listed[:count], best=best)

    def _log_probability(self, model: Any, row: Row, side: str) -> tuple[float, int]:
        """Σ log p of a side's tokens after its prompt, and how many they are."""
        whole = token_ids(self.tokenizer, row["prompt"] + row[side])
        asked: Any = self.tokenizer.apply_chat_template(
            row["prompt"], add_generation_prompt=True, tokenize=True, return_dict=False
        )
        start = next((at for at, (a, b) in enumerate(zip(asked, whole, strict=False)) if a != b), len(asked))
        device = next(model.parameters()).device
        ids = torch.tensor([whole], device=device)  # (1, T)
        with torch.autocast(device.type, torch.bfloat16, enabled=self.job.spec.options.bf16):
            logits = model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False).logits
        # The logits at t − 1 say how likely token t was.
        told = logits[0, start - 1 : -1].float().log_softmax(-1)  # (T − start, vocabulary)
        self.job.heartbeat()
        total = told.gather(1, ids[0, start:, None]).sum().item()
        return total, len(whole) - start

    def _stored_reference(self, count: int) -> list[list[float]] | None:
        """What an earlier attempt measured at step 0."""
        try:
            for _, line in parsed_lines(self.job.directory / INSIGHTS_FILE):
                stored = line.get("reference")
                if line.get("kind") == "extremes" and stored and len(stored) == count:
                    return stored
        except ValueError:
            pass
        return None

    def _write(self, kind: str, step: int, **values: Any) -> None:
        if self.job.is_main:
            self.job.write_insight({"kind": kind, "step": step} | values)


class InsightReporter(TrainerCallback):
    """Shows samples before the first step, after each evaluation and at the end."""

    def __init__(self, insights: Insights, trainer: Any) -> None:
        self.insights = insights
        self.trainer = trainer

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if state.global_step:
            return
        self.insights.show_hardware()
        self._show(0, extremes=True)

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self.insights.show_judged(state.global_step)
        if state.global_step < state.max_steps:  # the last one is that of the end
            self._show(state.global_step, extremes=False)

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if self.insights.job.stopped in ("discard", "terminated"):
            return
        if self.insights.shown_at == state.global_step:
            self.insights.shown_at = -1
        self._show(state.global_step, extremes=True)

    def _show(self, step: int, *, extremes: bool) -> None:
        self.insights.show(self.trainer.model_wrapped, self.trainer.accelerator, step, extremes=extremes)


@contextlib.contextmanager
def _evaluating(model: torch.nn.Module) -> Iterator[None]:
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)


def _lay_out(inputs: Mapping[str, Any]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, list[str]] | None:
    """Tokens, which of them are no padding, which of them the loss is taken on — (rows, T) each — and the sides."""
    if "completion_ids" in inputs and "prompt_ids" in inputs:  # rollouts
        ids = torch.cat([inputs["prompt_ids"], inputs["completion_ids"]], dim=1)
        attended = torch.cat([inputs["prompt_mask"], inputs["completion_mask"]], dim=1)
        in_loss = torch.cat([torch.zeros_like(inputs["prompt_mask"]), inputs["completion_mask"]], dim=1)
        return ids, attended, in_loss, [""] * len(ids)
    given = inputs.get("input_ids")
    if not isinstance(given, torch.Tensor):
        return None
    ids = given
    attended = inputs["attention_mask"] if "attention_mask" in inputs else torch.ones_like(ids)
    sides = [""] * len(ids)
    if "labels" in inputs:
        in_loss = inputs["labels"] != -100
    elif "completion_mask" in inputs:
        in_loss = inputs["completion_mask"]
    else:  # a reward model reads its score at the last token
        last = attended.cumsum(1).argmax(1)
        in_loss = torch.zeros_like(ids)
        in_loss[torch.arange(len(ids), device=ids.device), last] = 1
    if "label" in inputs:
        sides = ["desirable" if label else "undesirable" for label in inputs["label"]]
    elif "labels" not in inputs and len(ids) % 2 == 0:  # TRL stacks the chosen rows on the rejected ones
        sides = ["chosen"] * (len(ids) // 2) + ["rejected"] * (len(ids) // 2)
    return ids, attended, in_loss, sides


def _ids_of_end(model: Any, tokenizer: Any) -> set[int]:
    ends = getattr(model.generation_config, "eos_token_id", None)
    return {tokenizer.eos_token_id, *(ends if isinstance(ends, list) else [ends])}


def _readable(messages: list[Row]) -> list[Row]:
    return [{"role": _shown(message["role"]), "content": _shown(message["content"])} for message in messages]


def _texts(row: Row) -> Row:
    """A row as it is shown: its messages cut to what a page can hold."""
    kept = {key: _readable(row[key]) for key in ("prompt", "chosen", "rejected", "completion") if key in row}
    return kept | ({"label": row["label"]} if "completion" in row else {})


def _shown(text: str) -> str:
    """Postgres stores no NUL, and a page has room for so much."""
    text = text.replace("\x00", "\ufffd")
    return text if len(text) <= SHOWN_CHARACTERS else text[:SHOWN_CHARACTERS] + " …"


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
