"""Wall time of our DPO job against a bare TRL script with the same configuration, in the same run.

    python -m benchmarks.train_overhead [--model DIR] [--steps 8] [--batch 8] [--rounds 3] [--ways …] [--tiny]

Three ways take turns, each in a process of its own, timed from before the start of Python to its end:
`job` is a job directory run through the launcher (checks, checkpoints with manifests, metrics, heartbeat, result);
`bare` is a plain TRL script with the same DPOConfig, that saves the same checkpoints and the same merged model;
`bare, faster` is that script with our two savings on the arithmetic (prompts of a pair run once, only completions
projected to the vocabulary). job / bare is what a user gains or loses; job / bare, faster is our overhead alone. CPU
seconds stand beside the wall time, because they say more where other work shares the machine.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from rlhf import launcher  # noqa: E402
from rlhf.jobspec import JobSpec, Result  # noqa: E402
from rlhf.options import build_options  # noqa: E402

WORDS = ("the", "answer", "is", "short", "and", "polite", "because", "people", "asked", "for", "it", "today")


def options_for(steps: int, batch: int) -> dict[str, Any]:
    """One epoch of so many steps, with a checkpoint half-way and at the end."""
    return {
        "epochs": 1,
        "batch_size": batch,
        "micro_batch_size": min(batch, 4),
        "checkpoint_every_steps": max(1, steps // 2),
        "learning_rate": 1e-4,
        "sample_prompts": 0,  # a bare script writes none
    }


def rows(count: int, seed: int) -> list[dict[str, Any]]:
    """Pairs with prompts of about 25 words and responses of about 35."""
    rng = random.Random(seed)

    def words(about: int) -> str:
        return " ".join(rng.choices(WORDS, k=rng.randint(about // 2, about + about // 2)))

    def response() -> list[dict[str, str]]:
        return [{"role": "assistant", "content": words(35)}]

    return [
        {"prompt": [{"role": "user", "content": words(25)}], "chosen": response(), "rejected": response()}
        for _ in range(count)
    ]


def run_job(folder: Path, model: Path, options: dict[str, Any], train: list[dict], held_out: list[dict]) -> None:
    spec = JobSpec(job_id=1, method="dpo", base_model_dir=str(model), options=build_options("dpo", options))
    launcher.prepare(folder, spec, train, held_out)
    if launcher.start(folder).wait() or (result := Result.read(folder)) is None or result.status != "succeeded":
        sys.exit((folder / "stdout.log").read_text()[-3000:])


def run_bare(
    folder: Path, model: Path, options: dict[str, Any], train: list[dict], held_out: list[dict], *flags: str
) -> None:
    folder.mkdir()
    (folder / "rows.json").write_text(json.dumps([options, train, held_out]))
    environment = launcher.child_environment() | {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    command = [sys.executable, __file__, "--bare-run-in", str(folder), "--model", str(model), *flags]
    with (folder / "stdout.log").open("w") as log:
        if subprocess.run(command, env=environment, stdout=log, stderr=subprocess.STDOUT, check=False).returncode:
            sys.exit((folder / "stdout.log").read_text()[-3000:])


def bare_script(folder: Path, model: Path, faster: bool) -> None:
    """What a person would write: TRL's own trainer over the same rows with the same arguments."""
    import torch
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, AutoTokenizer, set_seed
    from trl import DPOConfig, DPOTrainer

    given, train, held_out = json.loads((folder / "rows.json").read_text())
    options = build_options("dpo", given)
    set_seed(options.seed)
    policy = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    if faster:
        from rlhf.training.shared_prompt import share_prompts
        from rlhf.training.trainer import score_only_completions

        share_prompts(policy)
        score_only_completions()
    trainer = DPOTrainer(
        model=policy,
        args=DPOConfig(
            output_dir=str(folder / "out"),
            per_device_train_batch_size=options.micro_batch_size,
            per_device_eval_batch_size=options.micro_batch_size,
            gradient_accumulation_steps=options.batch_size // options.micro_batch_size,
            num_train_epochs=options.epochs,
            learning_rate=options.learning_rate,
            warmup_steps=options.warmup_share,
            bf16=options.bf16,
            use_cpu=not torch.cuda.is_available(),
            gradient_checkpointing=False,
            save_steps=options.checkpoint_every_steps,
            save_total_limit=2,
            logging_steps=1,
            seed=options.seed,
            report_to="none",
            max_length=None,
            beta=options.beta,  # type: ignore[attr-defined]
            precompute_ref_log_probs=True,
        ),
        train_dataset=Dataset.from_list(train),
        eval_dataset=Dataset.from_list(held_out),
        processing_class=AutoTokenizer.from_pretrained(model),
        peft_config=LoraConfig(
            r=options.lora_rank, lora_alpha=options.lora_alpha, target_modules="all-linear", task_type="CAUSAL_LM"
        ),
    )
    trainer.train()
    trainer.evaluate()
    merged = trainer.accelerator.unwrap_model(trainer.model).merge_and_unload()
    merged.save_pretrained(folder / "model")
    AutoTokenizer.from_pretrained(model).save_pretrained(folder / "model")


def _cpu_of_children() -> float:
    """CPU seconds of all ended child processes."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=ROOT / "var" / "models" / "smollm2-135m-instruct")
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--batch", type=int, default=8, help="pairs in a step")
    parser.add_argument("--ways", nargs="+", choices=("job", "bare", "bare, faster"))
    parser.add_argument("--seed", type=int, default=0, help="of the order of the ways")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tiny", action="store_true", help="a model of 100,000 weights: nothing but overhead")
    parser.add_argument("--bare-run-in", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--faster", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.bare_run_in:
        bare_script(arguments.bare_run_in, arguments.model, arguments.faster)
        return

    folder = Path(tempfile.mkdtemp(prefix="touchstone-bench-"))
    try:
        model = arguments.model.resolve()
        if arguments.tiny:
            from tests.tiny_model import build_tiny_model

            model = build_tiny_model(folder / "tiny")
        elif not model.is_dir():
            sys.exit(f"{model} does not exist: run `python manage.py setup_model`, or name a --model")
        options = options_for(arguments.steps, arguments.batch)
        train, held_out = rows(arguments.steps * arguments.batch, seed=1), rows(8, seed=2)
        ways: dict[str, Any] = {"job": run_job, "bare": run_bare, "bare, faster": run_bare}
        ways = {way: run for way, run in ways.items() if way in (arguments.ways or ways)}
        seconds: dict[str, list[float]] = {way: [] for way in ways}
        cpu_seconds: dict[str, list[float]] = {way: [] for way in ways}
        print(f"{model.name}, LoRA DPO, {arguments.steps} steps of {arguments.batch} pairs, {os.cpu_count()} cores")
        print("                          wall s   CPU s")
        for number in range(arguments.rounds):
            # Each round in another order, so that no way always runs on what the one before it left warm.
            for way in random.Random(arguments.seed + number).sample(list(ways), len(ways)):
                place = folder / "run"
                flags = ["--faster"] if way == "bare, faster" else []
                began, cpu_began = time.monotonic(), _cpu_of_children()
                ways[way](place, model, options, train, held_out, *flags)
                seconds[way].append(time.monotonic() - began)
                cpu_seconds[way].append(_cpu_of_children() - cpu_began)
                shutil.rmtree(place)
                print(f"  round {number + 1}  {way:<13}{seconds[way][-1]:8.1f}{cpu_seconds[way][-1]:8.1f}", flush=True)
        wall, cpu = (
            {way: statistics.median(values) for way, values in kind.items()} for kind in (seconds, cpu_seconds)
        )
        for way in ways:
            print(f"  median   {way:<13}{wall[way]:8.1f}{cpu[way]:8.1f}")
        for other in [way for way in ways if way != "job" and "job" in ways]:
            aim = "   (aim: at most 1.05)" if other == "bare" else ""
            print(f"job / {other:<18}{wall['job'] / wall[other]:8.3f}{cpu['job'] / cpu[other]:8.3f}{aim}")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
