"""What each of our training defaults gives over TRL's own, on pairs of mixed lengths.

    python -m benchmarks.train_levers [--model DIR] [--pairs 12] [--ways NAME …] [--seeds 17 …] [--results FILE]

LoRA DPO of the same rows with the same learning rate, batch and seed, each way in a process of its own. `trl` is
DPOConfig as it comes (on a CPU it must be told `use_cpu`; then it chooses bfloat16 autocast, checkpoints gradients and
groups nothing); `ours` is what a job does; each other way is `trl` with one lever moved. Seconds run from the loaded
model to the end of the last step, the pass that computes the reference included. Tokens are those of the rows, both
sides, padding not counted, so that ways compare by the same number. With --results figures are added to a file, so
that a busy machine can be given one way at a time; of several --seeds the loss stands as mean ± standard deviation.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from itertools import product
from pathlib import Path
from statistics import mean, stdev
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.measure import machine  # noqa: E402
from rlhf import launcher  # noqa: E402

WORDS = ("the", "answer", "is", "short", "and", "polite", "because", "people", "asked", "for", "it", "today")
LEARNING_RATE, BATCH, MICRO_BATCH, EPOCHS = 1e-4, 8, 4, 2
OURS = ("no_checkpointing", "grouped", "precomputed", "shared_prompt", "completions_only")
WAYS: dict[str, tuple[str, ...]] = {
    "trl": (),
    "ours": OURS,
    **{lever: (lever,) for lever in OURS},
    "float32": ("float32",),
    "adamw_unfused": ("adamw_unfused",),
}
NAMES = {
    "trl": "TRL’s defaults",
    "ours": "**our defaults**",
    "no_checkpointing": "no gradient checkpointing",
    "grouped": "batches of like length",
    "precomputed": "reference computed once",
    "shared_prompt": "a pair’s prompt run once",
    "completions_only": "only completions to the vocabulary",
    "float32": "float32 instead of bfloat16 autocast",
    "adamw_unfused": "AdamW not fused",
}


def rows(count: int, seed: int) -> list[dict[str, Any]]:
    """Pairs of very mixed lengths: half of all rows are short, a few are twenty times as long."""
    rng = random.Random(seed)

    def words(about: float) -> str:
        return " ".join(rng.choices(WORDS, k=max(4, int(about * rng.lognormvariate(0, 0.8)))))

    def response(polite: bool) -> list[dict[str, str]]:
        return [{"role": "assistant", "content": f"{'Thank you.' if polite else 'Go away.'} {words(40)}"}]

    return [
        {"prompt": [{"role": "user", "content": words(40)}], "chosen": response(True), "rejected": response(False)}
        for _ in range(count)
    ]


def train_one_way(way: str, model_dir: Path, pairs: int, seed: int) -> dict[str, float]:
    """Train in this process."""
    import torch
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, AutoTokenizer, set_seed
    from trl import DPOConfig, DPOTrainer

    from rlhf.training.shared_prompt import share_prompts
    from rlhf.training.trainer import LengthGroupedSampler, score_only_completions

    levers = WAYS[way]
    train, held_out = rows(pairs, seed=1), rows(max(8, pairs // 3), seed=2)
    tokenizer = AutoTokenizer.from_pretrained(model_dir)
    lengths = [
        [
            len(tokenizer.apply_chat_template(row["prompt"] + row[side], return_dict=False))
            for side in row
            if side != "prompt"
        ]
        for row in train
    ]
    set_seed(seed)
    policy = AutoModelForCausalLM.from_pretrained(model_dir, dtype=torch.float32)
    if "shared_prompt" in levers:
        share_prompts(policy)
    if "completions_only" in levers:
        score_only_completions()

    class Trainer(DPOTrainer):
        def _get_train_sampler(self, train_dataset: Any = None) -> Any:
            if "grouped" in levers:
                return LengthGroupedSampler([max(sides) for sides in lengths], MICRO_BATCH, seed)
            return super()._get_train_sampler(train_dataset)

    changed: dict[str, Any] = {}
    if "no_checkpointing" in levers:
        changed["gradient_checkpointing"] = False
    if "precomputed" in levers:
        changed["precompute_ref_log_probs"] = True
    if "float32" in levers:
        changed["bf16"] = False
    if "adamw_unfused" in levers:
        changed["optim"] = "adamw_torch"
    with tempfile.TemporaryDirectory(prefix="touchstone-levers-") as folder:
        began, cpu_began = time.monotonic(), time.process_time()
        trainer = Trainer(
            model=policy,
            args=DPOConfig(
                output_dir=folder,
                use_cpu=not torch.cuda.is_available(),
                per_device_train_batch_size=MICRO_BATCH,
                per_device_eval_batch_size=MICRO_BATCH,
                gradient_accumulation_steps=BATCH // MICRO_BATCH,
                num_train_epochs=EPOCHS,
                learning_rate=LEARNING_RATE,
                warmup_steps=0.1,
                max_length=None,
                save_strategy="no",
                seed=seed,
                report_to="none",
                disable_tqdm=True,
                **changed,
            ),
            train_dataset=Dataset.from_list(train),
            eval_dataset=Dataset.from_list(held_out),
            processing_class=tokenizer,
            peft_config=LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM"),
        )
        trainer.train()
        seconds, cpu = time.monotonic() - began, time.process_time() - cpu_began
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
        eval_loss = trainer.evaluate()["eval_loss"]
    tokens = EPOCHS * sum(map(sum, lengths))
    return {"tokens": tokens, "seconds": seconds, "cpu_seconds": cpu, "peak_gb": peak, "eval_loss": eval_loss}


def run(way: str, model: Path, pairs: int, seed: int) -> dict[str, Any]:
    command = [sys.executable, __file__, "--in-process", way, "--model", str(model)]
    command += ["--pairs", str(pairs), "--seeds", str(seed)]
    environment = launcher.child_environment() | {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(done.stderr[-3000:])
    return json.loads(done.stdout.splitlines()[-1]) | {"way": way, "seed": seed, **machine()}


def table(results: list[dict[str, Any]]) -> str:
    """Medians of what was measured, and means of the loss, by way, beside TRL's defaults."""
    by_way: dict[str, list[dict[str, Any]]] = {}
    for result in results:
        by_way.setdefault(result["way"], []).append(result)

    def middle(way: str, name: str) -> float:
        values = sorted(result[name] for result in by_way[way])
        return values[len(values) // 2]

    lines = [
        "| | tokens/s | times TRL’s | tokens per CPU-second | times TRL’s | peak, GB | held-out loss | runs |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for way in WAYS:
        if way not in by_way:
            continue
        figures = []
        for clock in ("seconds", "cpu_seconds"):
            speed = middle(way, "tokens") / middle(way, clock)
            than = speed / (middle("trl", "tokens") / middle("trl", clock)) if "trl" in by_way else float("nan")
            figures += [f"{speed:.0f}", f"{than:.2f}"]
        losses = [result["eval_loss"] for result in by_way[way]]
        spread = f" ± {stdev(losses):.4f}" if len(losses) > 1 else ""
        figures += [f"{middle(way, 'peak_gb'):.2f}", f"{mean(losses):.4f}{spread}", str(len(losses))]
        lines.append(f"| {NAMES[way]} | {' | '.join(figures)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=ROOT / "var" / "models" / "smollm2-135m-instruct")
    parser.add_argument("--pairs", type=int, default=12)
    parser.add_argument("--ways", nargs="+", choices=list(WAYS), default=list(WAYS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[17], help="of the order of the rows and the adapter")
    parser.add_argument("--results", type=Path, help="a JSON Lines file that figures are added to")
    parser.add_argument("--in-process", choices=list(WAYS), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.in_process:
        print(json.dumps(train_one_way(arguments.in_process, arguments.model, arguments.pairs, *arguments.seeds)))
        return
    if not arguments.model.is_dir():
        sys.exit(f"{arguments.model} does not exist: run `python manage.py setup_model`, or name a --model")
    results = []
    if arguments.results and arguments.results.exists():
        results = [json.loads(line) for line in arguments.results.read_text().splitlines()]
    for way, seed in product(arguments.ways, arguments.seeds):
        results.append(run(way, arguments.model.resolve(), arguments.pairs, seed))
        print(json.dumps(results[-1]), flush=True)
        if arguments.results:
            with arguments.results.open("a") as file:
                file.write(json.dumps(results[-1]) + "\n")
    print(table(results))


if __name__ == "__main__":
    main()
