"""PPO, and GRPO with the KL inside the token reward, on accelerate. `ppo.py` and `grpo_token_kl.py` run it.

One step of either: sample completions from the policy, score them, and take a few optimizer steps on what came. Both
maximise, over prompts x and completions y sampled from the policy π_θ, with the base as the reference π_ref,

    J(θ) = E[ r(x, y) − β·KL(π_θ ‖ π_ref) ] − γ·E_SFT[ KL(π_θ ‖ π_ref) ]

and differ in how a token's advantage is had from the scores:

    PPO            a value head on the policy, generalised advantage estimation, advantages whitened over the step
    GRPO, token KL no critic: scores normalised within the samples of a prompt, minus β times the KL still to come

Source: Baichuan Alignment Technical Report (arXiv 2410.14940), eq. 2 and section 2.1, which runs GRPO with three
samples a prompt, the KL over the 500 likeliest tokens of the reference, and KL on chosen responses (the γ term) in
place of PPO-ptx's cross-entropy, because that pulls a merged model back to the one fine-tuned on this data.

The report prints +γ·KL although J is maximised, which would reward distance from the reference; here it is a penalty,
so +γ·KL in the loss (docs/adr/0016). And a KL that is summed over the vocabulary does not depend on the token that was
sampled: as a reward it teaches to keep out of *states* where the two models differ, and leaves the distribution within
a state to the γ term. k1, which is of the sampled token, does both.

Shapes: N completions in a step, B in one pass, C completion columns, V tokens in the vocabulary.
"""

from __future__ import annotations

import math
import shutil
import time
from collections import defaultdict
from collections.abc import Callable
from functools import partial
from typing import Any, cast

import torch
from peft import get_peft_model
from torch import Tensor, nn
from transformers import GenerationConfig, get_scheduler, set_seed
from trl.models.utils import prepare_deepspeed, unwrap_model_for_generation
from trl.trainer.utils import disable_dropout_in_model

from rlhf.jobspec import BadDataError
from rlhf.options import PolicyGradientOptions, PPOOptions
from rlhf.training import models
from rlhf.training.advantages import (
    clipped_policy_loss,
    clipped_value_loss,
    explained_variance,
    generalized_advantages,
    group_advantages,
    rewards_to_go,
    token_rewards,
    whiten,
)
from rlhf.training.divergence import sampled_kl, token_log_probs, top_k_kl
from rlhf.training.insights import Insights
from rlhf.training.job import Job, peak_memory_gb
from rlhf.training.layer_groups import checkpoint_layers
from rlhf.training.padding import padded
from rlhf.training.processes import prepared_accelerator
from rlhf.training.prompts import OnPolicyRows, endless_order, read_prompts
from rlhf.training.rewards import Messages, load_rewards
from rlhf.training.rollouts import ActorCritic, Prompt, Roller, Rollout, parts, trimmed
from rlhf.training.sampling import end_of_turn_ids, row_seed
from rlhf.training.trainer import (
    DivergedError,
    agreed_stop,
    checkpoint_to_resume,
    metrics_row,
    publish_checkpoint,
    readable_metrics,
    step_model_is_due,
)

MAX_GRAD_NORM = 1.0

Chosen = tuple[list[int], list[int]]
"""Token ids of a prompt and of its chosen response."""
Sums = dict[str, Tensor]
"""This process's part of each metric of a step."""


def train(job: Job) -> dict[str, float]:
    """Train, evaluate and save; gives the metrics of result.json."""
    options = cast(PolicyGradientOptions, job.spec.options)
    train_rows, held_out = read_prompts(job, options)
    set_seed(options.seed)  # an adapter's weights are drawn
    trainer = PolicyGradientTrainer(job, options, train_rows, held_out)
    metrics: dict[str, float] = {
        "rows_used": len(train_rows.prompts.rows),
        "rows_too_long": train_rows.prompts.too_long,
        "chosen_rows_used": len(trainer.chosen),
        "eval_rows_used": len(held_out.prompts.rows),
        "eval_rows_too_long": held_out.prompts.too_long,
    }
    metrics |= trainer.run()
    if job.stopped in ("discard", "terminated"):
        return metrics
    if trainer.held_out:
        metrics |= trainer.evaluate(int(metrics["steps"]))
    trainer.show_samples(int(metrics["steps"]))
    with unwrap_model_for_generation(trainer.model, trainer.accelerator) as whole:  # ZeRO-3 keeps shares of it
        models.save_model(job, whole.policy)
    return metrics


class PolicyGradientTrainer:
    """Trains a job's base with PPO (PPOOptions) or with GRPO with the KL in the token reward."""

    def __init__(self, job: Job, options: PolicyGradientOptions, train: OnPolicyRows, held_out: OnPolicyRows) -> None:
        self.job = job
        self.options = options
        self.tokenizer = models.load_tokenizer(job.base)
        self.insights = Insights(job, self.tokenizer, scores=False)
        self.prompts, self.held_out = (
            [Prompt(row["prompt"], self._prompt_ids(row["prompt"])) for row in rows.prompts.rows]
            for rows in (train, held_out)
        )
        self.chosen = [self._chosen(row) for row in train.chosen.rows] if options.ptx_coefficient else []
        if options.ptx_coefficient and not self.chosen:
            raise BadDataError("ptx_coefficient is set, but no chosen response fits into max_tokens: set it to 0")
        self.prompts_per_step = options.batch_size // options.samples_per_prompt
        self.total_steps = options.max_steps or math.ceil(options.epochs * len(self.prompts) / self.prompts_per_step)
        self.updates_per_step = options.update_epochs * options.minibatches
        rows_per_update = options.batch_size // options.minibatches + (options.ptx_batch_size if self.chosen else 0)
        passes = rows_per_update // (options.micro_batch_size * job.world_size)
        self.accelerator = prepared_accelerator(job, passes, MAX_GRAD_NORM)
        self._prepare_models()

    def _prepare_models(self) -> None:
        job, options, accelerator = self.job, self.options, self.accelerator
        policy: Any = models.load_policy(job.base)
        end_ids = end_of_turn_ids(policy, self.tokenizer)
        policy.generation_config = GenerationConfig(eos_token_id=end_ids)  # the base's top-p would change the samples
        if options.gradient_checkpointing:
            policy.gradient_checkpointing_enable({"use_reentrant": False})
        checkpoint_layers(policy, options.checkpoint_layers)
        reference = None
        if lora := models.lora_config(job, "CAUSAL_LM"):
            policy.enable_input_require_grads()
            policy = get_peft_model(policy, lora)
        else:
            reference = ActorCritic(models.load_policy(job.base), with_value_head=False).requires_grad_(False).eval()
            reference.to(accelerator.device)
        model = ActorCritic(policy, with_value_head=isinstance(options, PPOOptions))
        disable_dropout_in_model(model)  # or the policy would differ from itself between two passes
        optimizer = torch.optim.AdamW(self._parameter_groups(model), weight_decay=0.0)
        self.peak_rates = [group["lr"] for group in optimizer.param_groups]
        self.rate_at = _schedule(options, self.total_steps)
        if reference is not None and options.zero_stage:
            reference = prepare_deepspeed(reference, accelerator)
        self.model, self.optimizer = accelerator.prepare(model, optimizer)
        rewards = load_rewards(job, options, self.tokenizer)
        for reward in rewards:
            reward.to(accelerator.device)
        self.roller = Roller(job, options, accelerator, self.model, reference, self.tokenizer, end_ids, rewards)
        if options.use_lora and not options.zero_stage:
            accelerator.register_save_state_pre_hook(_leave_frozen_weights_out)

    def _parameter_groups(self, model: ActorCritic) -> list[dict[str, Any]]:
        options = self.options
        trained = [parameter for parameter in model.policy.parameters() if parameter.requires_grad]
        matrices, others = ([p for p in trained if (p.ndim >= 2) == is_matrix] for is_matrix in (True, False))
        groups: list[dict[str, Any]] = [
            {"params": matrices, "lr": options.learning_rate, "weight_decay": options.weight_decay},
            {"params": others, "lr": options.learning_rate},
        ]
        if model.value_head is not None and isinstance(options, PPOOptions):
            groups.append({"params": list(model.value_head.parameters()), "lr": options.value_learning_rate})
        return [group for group in groups if group["params"]]

    # ── The loop ─────────────────────────────────────────────────────────────────────────────────────────────────

    def run(self) -> dict[str, float]:
        """Train from the start or from the spec's checkpoint; gives what result.json says of the training itself."""
        job, options = self.job, self.options
        step, loss = self._resume(), 0.0
        if step == 0:
            self.insights.show_hardware()
            self.show_samples(0)
        job.in_steps = True
        try:
            while step < self.total_steps and not job.stopped:
                began = time.monotonic()
                values = self._step(step)
                step, loss = step + 1, values["loss"]
                values["epoch"] = step * self.prompts_per_step / len(self.prompts)
                self.log(step, values, seconds=time.monotonic() - began)
                job.heartbeat()
                job.stopped = agreed_stop(job.asked_to_stop() if job.is_main else None, self.accelerator.device)
                is_due = step % options.checkpoint_every_steps == 0 or step == self.total_steps
                if job.stopped != "discard" and (job.stopped or is_due):
                    self._save(step)
                if step_model_is_due(job, step, self.total_steps):
                    with unwrap_model_for_generation(self.model, self.accelerator) as whole:
                        models.save_step_model(job, whole.policy, step)
                if options.eval_every_steps and step % options.eval_every_steps == 0 and not job.stopped:
                    self.evaluate(step)
                    self.show_samples(step)
        finally:
            job.in_steps = False
        return {"steps": float(step), "train_loss": loss}

    def _step(self, step: int) -> dict[str, float]:
        """Sample, score, learn; gives the step's metrics."""
        options = self.options
        share = self.rate_at(step + 0.5)  # at the middle of the step: neither the first nor the last is wasted
        for group, peak in zip(self.optimizer.param_groups, self.peak_rates, strict=True):
            group["lr"] = peak * share
        order = endless_order(len(self.prompts), step * self.prompts_per_step, self.prompts_per_step, options.seed)
        rollout = self.roller.roll(
            [self.prompts[index] for index in order for _ in range(options.samples_per_prompt)], stream=step
        )
        self.insights.show_batch(rollout.as_batch())
        advantages, returns = self._advantages(rollout)
        sums: Sums = defaultdict(lambda: torch.zeros((), device=self.accelerator.device))
        self.model.train()
        size = options.batch_size // options.minibatches
        for epoch in range(options.update_epochs):
            shuffled = endless_order(
                options.batch_size, 0, options.batch_size, seed=row_seed(options.seed, step, epoch) % (1 << 31)
            )
            for number, rows in enumerate(parts(shuffled, size), start=epoch * options.minibatches):
                self._update(rollout, rows, advantages, returns, step * self.updates_per_step + number, sums)
        names = sorted(sums)
        totals = self.accelerator.reduce(torch.stack([sums[name] for name in names]), "sum").tolist()
        values = {name: total / self.updates_per_step for name, total in zip(names, totals, strict=True)}
        values["grad_norm"] /= self.job.world_size  # every process has the same one
        if isinstance(options, PPOOptions):
            values["value_explained_variance"] = explained_variance(rollout.values, returns, rollout.mask).item()
        values |= {"learning_rate": options.learning_rate * share, "rollout_tokens": rollout.attention.sum().item()}
        return values | self.roller.describe(rollout)

    def _advantages(self, rollout: Rollout) -> tuple[Tensor, Tensor]:
        """Advantages and, for the critic, returns; (N, C) each."""
        options, scores = self.options, self.roller.total(rollout)
        if isinstance(options, PPOOptions):
            rewards = token_rewards(scores, rollout.kl, rollout.mask, options.kl_coefficient)
            advantages, returns = generalized_advantages(
                rewards, rollout.values, rollout.mask, options.discount, options.gae_lambda
            )
            return whiten(advantages, rollout.mask), returns
        scores = group_advantages(scores, options.samples_per_prompt)
        rewards = token_rewards(scores, rollout.kl, rollout.mask, options.kl_coefficient)
        returns = rewards_to_go(rewards, rollout.mask, gamma=1.0)
        return returns, returns

    # ── Learning ─────────────────────────────────────────────────────────────────────────────────────────────────

    def _update(
        self, rollout: Rollout, rows: list[int], advantages: Tensor, returns: Tensor, number: int, sums: Sums
    ) -> None:
        """Optimizer step `number` of the run, on these rows of the rollout and the chosen responses whose turn it is.

        The loss is a mean over the tokens of all passes and processes, however they are spread.
        """
        options = self.options
        losses: list[Callable[[], Tensor]] = []
        # Chosen responses come first: where gradients are synchronised, in the last pass, every parameter must take
        # part, and the value head has none in these.
        if self.chosen:
            start = number * options.ptx_batch_size
            order = endless_order(len(self.chosen), start, options.ptx_batch_size, options.seed)
            batch = [self.chosen[index] for index in order]
            chosen_tokens = sum(len(completion) for _, completion in batch)
            losses += [
                partial(self._chosen_loss, part, chosen_tokens, sums)
                for part in parts(self._my_share(batch), options.micro_batch_size)
            ]
        tokens = rollout.mask[rows].sum()
        losses += [
            partial(self._policy_loss, rollout, part, advantages, returns, tokens, sums)
            for part in parts(self._my_share(rows), options.micro_batch_size)
        ]
        for loss_of_part in losses:
            with self.accelerator.accumulate(self.model):
                loss = loss_of_part()
                sums["loss"] += loss.detach()
                # accelerate divides by the number of passes and averages over processes; these losses add up.
                self.accelerator.backward(loss * len(losses) * self.job.world_size)
                if self.accelerator.sync_gradients:
                    norm = self.accelerator.clip_grad_norm_(self.model.parameters(), MAX_GRAD_NORM)
                    sums["grad_norm"] += 0.0 if norm is None else float(norm)
                self.optimizer.step()
                self.optimizer.zero_grad()
        self.job.heartbeat()

    def _my_share(self, items: list[Any]) -> list[Any]:
        share = len(items) // self.job.world_size
        return items[self.accelerator.process_index * share :][:share]

    def _policy_loss(
        self, rollout: Rollout, rows: list[int], advantages: Tensor, returns: Tensor, tokens: Tensor, sums: Sums
    ) -> Tensor:
        """These rows' part of a mean over `tokens` tokens."""
        options = self.options
        ids, attention, completions, mask = trimmed(rollout, rows)  # (B, …)
        kept = mask.shape[1]
        logits, values = self.model(ids, attention, kept)
        log_ratio = token_log_probs(logits / options.temperature, completions) - rollout.log_probs[rows, :kept]
        token_losses, is_clipped = clipped_policy_loss(log_ratio, advantages[rows, :kept], options.clip_range)

        def part_of_mean(value: Tensor) -> Tensor:
            return (value * mask).sum() / tokens

        loss = part_of_mean(token_losses)
        sums["policy_loss"] += loss.detach()
        sums["clip_ratio/region_mean"] += part_of_mean(is_clipped.float())
        sums["approx_kl"] += part_of_mean(sampled_kl(-log_ratio.detach(), torch.zeros_like(log_ratio), "k3"))
        if values is not None and isinstance(options, PPOOptions):
            old_values, targets = rollout.values[rows, :kept], returns[rows, :kept]
            value_loss = part_of_mean(clipped_value_loss(values, old_values, targets, options.value_clip_range))
            sums["value_loss"] += value_loss.detach()
            loss = loss + options.value_coefficient * value_loss
        return loss

    def _chosen_loss(self, batch: list[Chosen], tokens: int, sums: Sums) -> Tensor:
        """These chosen responses' part of γ times the mean over `tokens` tokens of the KL to the reference."""
        kept = max(len(completion) for _, completion in batch)
        pad_id, device = self.tokenizer.pad_token_id, self.accelerator.device
        # Left: completions end at the right edge.
        ids, attention = padded(
            [prompt + completion for prompt, completion in batch], pad_id, side="left", device=device
        )
        _, mask = padded([completion for _, completion in batch], pad_id, side="left", device=device)
        ref_logits = self.roller.reference_logits(ids, attention, kept)
        logits, values = self.model(ids, attention, kept)
        kl = (top_k_kl(logits, ref_logits, self.options.kl_top_k) * mask).sum() / tokens
        sums["ptx_kl"] += kl.detach()
        unused = 0.0 if values is None else 0.0 * values.sum()  # an engine waits for every parameter's gradient
        return self.options.ptx_coefficient * kl + unused

    # ── Reporting and checkpoints ────────────────────────────────────────────────────────────────────────────────

    def evaluate(self, step: int) -> dict[str, float]:
        """One completion for each held-out prompt, from the same random stream every time; names begin with eval_.

        They are logged, and the best and worst completions shown.
        """
        totals: dict[str, float] = defaultdict(float)
        for number, part in enumerate(parts(self.held_out, self.options.batch_size)):
            rollout = self.roller.roll(part, stream=-1 - number)
            for name, value in self.roller.describe(rollout).items():
                totals[f"eval_{name}"] += value * len(part) / len(self.held_out)
            self.insights.judge(self.roller.judged(part, rollout))
        self.log(step, totals)
        self.insights.show_judged(step)
        return dict(totals)

    def show_samples(self, step: int) -> None:
        """What the policy writes now to the job's sample prompts (insights.jsonl)."""
        self.insights.show(self.model, self.accelerator, step, extremes=False)

    def log(self, step: int, values: dict[str, float], *, seconds: float | None = None) -> None:
        """Write one line of metrics.jsonl. Raises DivergedError."""
        if not self.job.is_main:
            return
        if seconds is not None:
            values = values | {"seconds": seconds, "tokens_per_second": values.pop("rollout_tokens") / seconds}
        on_gpu = torch.cuda.is_available()
        memory = torch.cuda.max_memory_allocated() / 1e9 if on_gpu else peak_memory_gb()
        self.job.write_metrics(metrics_row(step, self.total_steps, values | {"peak_memory_gb": memory}))
        print(f"step {step}/{self.total_steps}: {readable_metrics(values)}", flush=True)
        if not math.isfinite(values.get("loss", 0.0)):
            raise DivergedError(
                f"The loss became {values['loss']} at step {step}: training diverged. "
                "Use a lower learning_rate, a smaller clip_range or a larger kl_coefficient."
            )

    def _save(self, step: int) -> None:
        unfinished = self.job.unfinished
        try:
            self.accelerator.save_state(str(unfinished / f"checkpoint-{step}"))
            self.accelerator.wait_for_everyone()
            if self.job.is_main:
                publish_checkpoint(self.job, unfinished / f"checkpoint-{step}", step)
            self.accelerator.wait_for_everyone()
        finally:
            # On a full disk this is the room that result.json needs.
            if self.job.is_main:
                shutil.rmtree(unfinished, ignore_errors=True)
        self.job.heartbeat()

    def _resume(self) -> int:
        """The number of steps that are done. What a step draws depends on its number alone."""
        directory = checkpoint_to_resume(self.job)
        if directory is None:
            return 0
        if self.options.use_lora and not self.options.zero_stage:
            self.accelerator.load_state(directory, strict=False)  # the frozen weights are the base's
        else:
            self.accelerator.load_state(directory)
        return int(self.job.spec.resume_from.removeprefix("step-"))

    # ── Tokens ───────────────────────────────────────────────────────────────────────────────────────────────────

    def _prompt_ids(self, messages: Messages) -> list[int]:
        ids: Any = self.tokenizer.apply_chat_template(
            messages, add_generation_prompt=True, tokenize=True, return_dict=False
        )
        return ids

    def _chosen(self, row: dict[str, Any]) -> Chosen:
        prompt = self._prompt_ids(row["prompt"])
        messages = row["prompt"] + row["completion"]
        ids: Any = self.tokenizer.apply_chat_template(messages, tokenize=True, return_dict=False)
        return ids[: len(prompt)], ids[len(prompt) :]


def _schedule(options: PolicyGradientOptions, total_steps: int) -> Callable[[float], float]:
    """Step → share of the peak learning rate. A function of the step alone: no scheduler's state is to be resumed."""
    idle = torch.optim.SGD([nn.Parameter(torch.zeros(()))], lr=1.0)
    scheduler: Any = get_scheduler(options.scheduler, idle, round(options.warmup_share * total_steps), total_steps)
    return scheduler.lr_lambdas[0]


def _leave_frozen_weights_out(trained: list[nn.Module], weights: list[dict[str, Tensor]], _directory: str) -> None:
    """A checkpoint of an adapter needs no copy of the base."""
    for model, state in zip(trained, weights, strict=True):
        learnt = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
        for name in set(state) - learnt:
            del state[name]
