"""What every method adds to its TRL trainer: our checkpoints, metrics, stopping, and batches of like length."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import shutil
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
import trl.trainer.utils
from accelerate import Accelerator
from datasets import Dataset
from torch.utils.data import DataLoader, Sampler
from transformers import PrinterCallback, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer import TRAINING_ARGS_NAME

from rlhf.jobspec import (
    CHECKPOINTS_DIR,
    CHECKPOINTS_KEPT,
    OPTIONS_FILE,
    BadDataError,
    check_manifest,
    check_resumable,
    complete_checkpoints,
    publish_directory,
    write_json_atomically,
)
from rlhf.options import GivenRowsOptions, world_size
from rlhf.training import models
from rlhf.training.insights import InsightReporter, Insights
from rlhf.training.job import SIGTERM_EXIT_CODE, Job, StopReason, peak_memory_gb
from rlhf.training.layer_groups import checkpoint_layers
from rlhf.training.models import save_model
from rlhf.training.processes import before_division, process_arguments, whole_model
from rlhf.training.rows import RowSet
from rlhf.training.sequence_parallel import WithPositions, check_heads

# Batches of like length are drawn from this many at a time: enough to save the padding, few enough to stay mixed.
_BATCHES_SORTED_TOGETHER = 32
_STOP_CODES: list[StopReason | None] = [None, "keep", "discard", "terminated"]


class DivergedError(BadDataError):
    """The loss is no longer a number; another attempt with the same options would end the same way."""


def training_arguments(job: Job) -> dict[str, Any]:
    """Arguments that all of TRL's configs share, from the job's options. Raises SpecError."""
    options = job.spec.options
    rows_per_pass = options.micro_batch_size * world_size(options) // options.sequence_parallel
    return process_arguments(job) | {
        "output_dir": str(job.unfinished),
        "per_device_train_batch_size": options.micro_batch_size,
        "per_device_eval_batch_size": options.micro_batch_size,
        "gradient_accumulation_steps": options.batch_size // rows_per_pass,
        "num_train_epochs": options.epochs,
        "max_steps": options.max_steps or -1,
        "learning_rate": options.learning_rate,
        "warmup_steps": options.warmup_share,  # a share of the steps where below 1
        "lr_scheduler_type": options.scheduler,
        "weight_decay": options.weight_decay,
        "gradient_checkpointing": options.gradient_checkpointing,
        "save_strategy": "steps",  # and once more after the last step
        "save_steps": options.checkpoint_every_steps,
        "eval_strategy": "steps" if options.eval_every_steps else "no",
        "eval_steps": options.eval_every_steps or None,
        "logging_steps": 1,
        # Otherwise a loss that is not a number is logged as the mean of those before it.
        "logging_nan_inf_filter": False,
        "seed": options.seed,
        "ddp_find_unused_parameters": False,
        "dataloader_pin_memory": torch.cuda.is_available(),
        "disable_tqdm": True,
        "report_to": "none",
    }


def checkpoint_to_resume(job: Job) -> str | None:
    """The directory that the spec names, checked against its manifest. Raises SpecError."""
    if not job.spec.resume_from:
        return None
    directory = job.directory / CHECKPOINTS_DIR / job.spec.resume_from
    check_manifest(directory)
    check_resumable(directory, job.spec.options)
    return str(directory)


def publish_checkpoint(job: Job, draft: Path, step: int) -> None:
    """Make a finished draft the checkpoint of this step, and delete those that are too old to be needed."""
    written_with = dataclasses.asdict(job.spec.options) | {"rows_grouped": job.rows_grouped}
    write_json_atomically(draft / OPTIONS_FILE, written_with)
    publish_directory(draft, job.directory / CHECKPOINTS_DIR / f"step-{step}")
    for name in complete_checkpoints(job.directory)[:-CHECKPOINTS_KEPT]:
        shutil.rmtree(job.directory / CHECKPOINTS_DIR / name)


class LengthGroupedSampler(Sampler[int]):
    """Rows in random order, except that each group of `batch_size` holds rows of like length.

    The order depends on the seed and the epoch alone, so a resumed run goes on where the first one stopped.
    """

    def __init__(self, lengths: list[int], batch_size: int, seed: int) -> None:
        self.lengths = lengths
        self.batch_size = batch_size
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
        order = torch.randperm(len(self.lengths), generator=generator).tolist()
        span = self.batch_size * _BATCHES_SORTED_TOGETHER
        by_length = [
            index
            for start in range(0, len(order), span)
            for index in sorted(order[start : start + span], key=lambda index: self.lengths[index])
        ]
        batches = [by_length[start : start + self.batch_size] for start in range(0, len(order), self.batch_size)]
        # The loader cuts this sequence every batch_size rows, so a batch that is not full must come last.
        rest = batches.pop() if batches and len(batches[-1]) < self.batch_size else []
        for position in torch.randperm(len(batches), generator=generator).tolist():
            yield from batches[position]
        yield from rest


class JobTrainer:
    """Goes in front of a TRL trainer class: `class JobDPOTrainer(JobTrainer, DPOTrainer)`."""

    def __init__(
        self,
        *args: Any,
        job: Job,
        train_tokens: list[int] | None,
        eval_categories: Sequence[str] = (),
        **kwargs: Any,
    ) -> None:
        """`train_tokens` are the lengths of the rows of train_dataset; None where rows are packed together.

        `eval_categories` are those of the rows of eval_dataset, each of which is then measured by itself, too.
        """
        self.job = job
        self._train_tokens = train_tokens
        self._eval_categories = rows_by_category(eval_categories)
        self._eval_batch_rows: list[int] = []
        checkpoint_layers(kwargs["model"], job.spec.options.checkpoint_layers)
        super().__init__(*args, **kwargs)
        if (size := job.spec.options.sequence_parallel) > 1:
            trainer: Any = self
            check_heads(trainer.model.config, size)
            trainer.data_collator = WithPositions(trainer.data_collator)
        self.remove_callback(PrinterCallback)  # type: ignore[attr-defined]
        self._reporter = StepReporter(job)
        self.add_callback(self._reporter)  # type: ignore[attr-defined]
        self._insights = Insights(job, self.processing_class, scores=job.spec.method == "reward")  # type: ignore[attr-defined]
        self.add_callback(InsightReporter(self._insights, self))  # type: ignore[attr-defined]
        if job.spec.options.model_every_steps and job.spec.method != "reward":
            self.add_callback(StepModelSaver(job, self))  # type: ignore[attr-defined]

    def _prepare_inputs(self, inputs: Any) -> Any:
        prepared = super()._prepare_inputs(inputs)  # type: ignore[misc]
        if self.job.in_steps:
            self._insights.show_batch(prepared)
        return prepared

    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler[int] | None:
        if self._train_tokens is None:
            return super()._get_train_sampler(train_dataset)  # type: ignore[misc]
        return LengthGroupedSampler(self._train_tokens, self.job.rows_grouped, self.job.spec.options.seed)

    def create_model_card(self, *_args: Any, **_kwargs: Any) -> None:
        """TRL's card says nothing that is true of our models; the web side writes the lineage."""

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        unfinished = Path(self.args.output_dir)  # type: ignore[attr-defined]
        if self.job.is_main:
            shutil.rmtree(unfinished, ignore_errors=True)
        self.accelerator.wait_for_everyone()  # type: ignore[attr-defined]
        try:
            super()._save_checkpoint(model, trial)  # type: ignore[misc]
            self.accelerator.wait_for_everyone()  # type: ignore[attr-defined]
            if self.job.is_main:
                step = self.state.global_step  # type: ignore[attr-defined]
                draft = unfinished / f"checkpoint-{step}"
                (draft / TRAINING_ARGS_NAME).unlink(missing_ok=True)  # a pickle that nothing reads
                self.job.heartbeat()
                publish_checkpoint(self.job, draft, step)
        finally:
            # On a full disk this is the room that result.json needs.
            if self.job.is_main:
                shutil.rmtree(unfinished, ignore_errors=True)
        self.job.heartbeat()

    def _precompute_ref_logps(self, dataset: Dataset, name: str, batch_size: int) -> Dataset:
        """DPO's pass over all rows before the first step; TRL's own exchanges files between ranks, and fails on rows
        that are held in memory."""
        accelerator: Accelerator = self.accelerator  # type: ignore[attr-defined]
        loader = accelerator.prepare_data_loader(
            DataLoader(dataset, batch_size, collate_fn=self.data_collator)  # type: ignore[attr-defined]
        )
        # DeepSpeed moves the model when the first step begins.
        self.model.to(accelerator.device)  # type: ignore[attr-defined]
        chosen: list[torch.Tensor] = []  # (rows of a batch,) each
        rejected: list[torch.Tensor] = []
        for batch in loader:
            with before_division():
                pair = self.compute_ref_log_probs(self.model, batch)  # type: ignore[attr-defined]
            for collected, values in zip((chosen, rejected), accelerator.gather_for_metrics(pair), strict=True):
                collected.append(values.float().cpu())
            self.job.heartbeat()
        return dataset.add_column("ref_chosen_logps", torch.cat(chosen).tolist()).add_column(
            "ref_rejected_logps", torch.cat(rejected).tolist()
        )

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """The trainer's own; nothing under sequence parallelism, where ranks hold stretches of rows, not rows."""
        if self.job.spec.options.sequence_parallel > 1:
            return {}
        if args or kwargs.get("eval_dataset") is not None or len(self._eval_categories) < 2:
            return super().evaluate(*args, **kwargs)  # type: ignore[misc]
        trainer: Any = self
        whole, found = trainer.eval_dataset, []
        self._reporter.is_silent = True
        try:
            for category, rows in self._eval_categories.items():
                # Not as an argument: DPO would compute the reference's log-probabilities of it anew.
                trainer.eval_dataset = whole.select(rows)
                found.append((category, len(rows), super().evaluate(**kwargs)))  # type: ignore[misc]
        finally:
            trainer.eval_dataset = whole
            self._reporter.is_silent = False
        metrics = metrics_by_category(found)
        self._reporter.on_log(trainer.args, trainer.state, trainer.control, metrics)
        return metrics

    def prediction_step(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        # On-policy trainers are given a list of prompts.
        self._eval_batch_rows.append(len(inputs["input_ids"] if isinstance(inputs, dict) else inputs))
        return super().prediction_step(model, inputs, *args, **kwargs)  # type: ignore[misc]

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        # TRL averages held-out metrics over batches; the last batch is smaller, so its rows would count for more.
        for name, values in self._metrics["eval"].items():  # type: ignore[attr-defined]
            if values and len(values) == len(self._eval_batch_rows):
                weighted = sum(value * rows for value, rows in zip(values, self._eval_batch_rows, strict=True))
                self._metrics["eval"][name] = [weighted / sum(self._eval_batch_rows)]  # type: ignore[attr-defined]
        self._eval_batch_rows = []
        super().log(logs, start_time)  # type: ignore[misc]

    def run(self) -> dict[str, float]:
        """Train from the start or from the spec's checkpoint; gives what result.json says of the training itself."""
        job = self.job
        resume_from = checkpoint_to_resume(job)
        job.in_steps = True
        try:
            output = self.train(resume_from_checkpoint=resume_from)  # type: ignore[attr-defined]
        finally:
            job.in_steps = False
        shutil.rmtree(self.args.output_dir, ignore_errors=True)  # type: ignore[attr-defined]
        return {"steps": float(output.global_step), "train_loss": float(output.training_loss)}

    def train_and_save(self) -> dict[str, float]:
        """`run`; then, unless what was learnt is not to be kept, measure the held-out rows and save the model.

        Gives the metrics of both.
        """
        metrics = self.run()
        if self.job.stopped in ("discard", "terminated"):
            return metrics
        if self.eval_dataset is not None:  # type: ignore[attr-defined]
            metrics |= self.evaluate()
        with self.whole_model() as trained:
            save_model(self.job, trained)
        return metrics

    def whole_model(self) -> contextlib.AbstractContextManager[Any]:
        """The trained model, with weights that ZeRO-3 had divided gathered for as long as the block lasts."""
        return whole_model(self)


def score_only_completions() -> None:
    """Have TRL project the tokens that the loss is taken on, and no others, to the vocabulary on a CPU too.

    TRL 1.16 projects every position where there is no Triton, to keep shapes constant for compilers that we do not
    use; the output layer is a fifth of a small model. Values are the same.
    """
    if not torch.cuda.is_available():
        trl.trainer.utils._use_triton = lambda device: True


def cut_at(options: GivenRowsOptions) -> int | None:
    """After how many tokens TRL is to cut a row; None where none is longer, because those were left out."""
    return options.max_tokens if options.long_rows == "truncate" else None


def row_counts(train: RowSet, held_out: RowSet) -> dict[str, float]:
    """How many rows were used and left out, for result.json."""
    return {
        "rows_used": len(train.rows),
        "rows_too_long": train.too_long,
        "rows_cut": train.cut,
        "eval_rows_used": len(held_out.rows),
        "eval_rows_too_long": held_out.too_long,
    }


MOST_CATEGORIES = 24
_OF_CATEGORIES = {
    "eval_loss": "loss",
    "eval_accuracy": "accuracy",
    "eval_rewards/accuracies": "accuracy",
    "eval_margin": "margin",
    "eval_rewards/margins": "margin",
    "eval_mean_token_accuracy": "token_accuracy",
}
_SUMS = {"eval_runtime"}
_PACES = {"eval_samples_per_second", "eval_steps_per_second"}


def rows_by_category(categories: Sequence[str]) -> dict[str, list[int]]:
    """Places of the rows of each category, the largest first; those beyond the first so many count as "other"."""
    places: dict[str, list[int]] = {}
    for place, category in enumerate(categories):
        places.setdefault(category or "none", []).append(place)
    ordered = sorted(places, key=lambda category: (-len(places[category]), category))
    kept = {category: places[category] for category in ordered[:MOST_CATEGORIES]}
    for category in ordered[MOST_CATEGORIES:]:
        kept["other"] = kept.get("other", []) + places[category]
    return kept


def metrics_by_category(found: Sequence[tuple[str, int, dict[str, float]]]) -> dict[str, float]:
    """Of (category, rows, its metrics): the means over all rows, and `eval_category/NAME/METRIC` of each category."""
    total = sum(rows for _, rows, _ in found)
    metrics: dict[str, float] = {}
    for name in found[0][2]:
        if name not in _PACES and all(name in values for _, _, values in found):
            metrics[name] = sum(values[name] * (1 if name in _SUMS else rows / total) for _, rows, values in found)
    for category, rows, values in found:
        for name, short in _OF_CATEGORIES.items():
            if name in values:
                metrics[f"eval_category/{category}/{short}"] = values[name]
        metrics[f"eval_category/{category}/rows"] = rows
    return metrics


class StepReporter(TrainerCallback):
    """Writes metrics.jsonl, touches the heartbeat and looks for a reason to stop, at each optimizer step."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.is_silent = False
        """While categories are measured one after the other: they are reported together."""
        self._step_began = time.monotonic()
        self._step_seconds = 0.0
        self._tokens_before = 0.0

    def on_step_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self._step_began = time.monotonic()

    def on_substep_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self.job.heartbeat()

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self._step_seconds = time.monotonic() - self._step_began
        self.job.heartbeat()
        self.job.stopped = agreed_stop(self.job.asked_to_stop() if self.job.is_main else None, args.device)
        if self.job.stopped:
            control.should_training_stop = True
            control.should_evaluate = False
            control.should_save = self.job.stopped != "discard"

    def on_prediction_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        self.job.heartbeat()
        if self.job.terminated:
            # Evaluation can take longer than the supervisor waits; the last checkpoint is at most a few steps old.
            raise SystemExit(SIGTERM_EXIT_CODE)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **_: Any,
    ) -> None:
        if not self.job.is_main or not logs or "train_runtime" in logs or self.is_silent:
            return
        values = {name: float(value) for name, value in logs.items() if isinstance(value, int | float)}
        if "loss" in values:
            tokens = values.get("num_tokens", 0.0)
            values["seconds"] = self._step_seconds
            # After a resume the trainer counts tokens from 0 again.
            values["tokens_per_second"] = (tokens - self._tokens_before) / max(self._step_seconds, 1e-9)
            self._tokens_before = tokens
        values["peak_memory_gb"] = (
            torch.cuda.max_memory_allocated() / 1e9 if torch.cuda.is_available() else peak_memory_gb()
        )
        self.job.write_metrics(metrics_row(state.global_step, state.max_steps, values))
        print(f"step {state.global_step}/{state.max_steps}: {readable_metrics(values)}", flush=True)
        if "loss" in values and not math.isfinite(values["loss"]):
            raise DivergedError(
                f"The loss became {values['loss']} at step {state.global_step}: training diverged. "
                "Use a lower learning_rate or a longer warm-up (warmup_share)."
            )


class StepModelSaver(TrainerCallback):
    """Saves a whole model every so many steps, for evaluations that run beside the training."""

    def __init__(self, job: Job, trainer: JobTrainer) -> None:
        self.job = job
        self.trainer = trainer

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if step_model_is_due(self.job, state.global_step, state.max_steps):
            with self.trainer.whole_model() as model:
                models.save_step_model(self.job, model, state.global_step)


def step_model_is_due(job: Job, step: int, total_steps: int) -> bool:
    """The same on every rank. The last step's model is the job's own."""
    every = job.spec.options.model_every_steps
    return bool(every) and step % every == 0 and step < total_steps and not job.stopped


def metrics_row(step: int, total_steps: int, values: dict[str, float]) -> dict[str, Any]:
    """One line of metrics.jsonl. JSON has no NaN: such values become null and are named under `nonfinite`."""
    row: dict[str, Any] = {"step": step, "total_steps": total_steps}
    row |= {name: value if math.isfinite(value) else None for name, value in values.items()}
    if nonfinite := sorted(name for name, value in values.items() if not math.isfinite(value)):
        row["nonfinite"] = nonfinite
    return row | {"time": time.time()}


def readable_metrics(values: dict[str, float]) -> str:
    """The few metrics that a person watches a log for."""
    watched = (
        "loss",
        "reward",
        "kl",
        "accuracy",
        "rewards/accuracies",
        "margin",
        "rewards/margins",
        "mean_token_accuracy",
    )
    names = [name for name in values if name.removeprefix("eval_") in (*watched, "learning_rate", "seconds")]
    return ", ".join(f"{name} {values[name]:.4g}" for name in names)


def agreed_stop(reason: StopReason | None, device: torch.device) -> StopReason | None:
    """Rank 0's reason on every rank: a rank that went on alone would wait for the others for ever."""
    if not torch.distributed.is_initialized():
        return reason
    code = torch.tensor(_STOP_CODES.index(reason), device=device)
    torch.distributed.broadcast(code, src=0)
    return _STOP_CODES[int(code)]
