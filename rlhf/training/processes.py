"""What several processes, and DeepSpeed, ask of a trainer: its arguments, and the whole model at the end."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import Any

import accelerate.state
import torch
import trl.trainer.utils
from accelerate import Accelerator
from accelerate.utils import DeepSpeedPlugin, DistributedType, InitProcessGroupKwargs
from trl.models.utils import unwrap_model_for_generation

from rlhf.hardware import hardware
from rlhf.launch_commands import DEEPSPEED_FILE, check_hardware, notes
from rlhf.options import SpecError, world_size
from rlhf.training.job import Job
from rlhf.training.sequence_parallel import sequence_parallel_arguments


def process_arguments(job: Job) -> dict[str, Any]:
    """TrainingArguments that depend on the processes and on the hardware. Raises SpecError."""
    options = job.spec.options
    has_gpu = torch.cuda.is_available()
    if job.world_size != world_size(options):
        raise SpecError(
            f"processes: the options ask for {world_size(options)} and {job.world_size} were started; "
            "start the job with the command that its page shows"
        )
    check_hardware(options, len(hardware().gpus) if has_gpu else 0)
    if job.is_main:
        for note in notes(options, int(has_gpu)):
            print(note, flush=True)
    arguments: dict[str, Any] = {"bf16": options.bf16, "use_cpu": not has_gpu}
    if job.world_size > 1 and not has_gpu:
        arguments["ddp_backend"] = "gloo"
    if options.zero_stage:
        if not has_gpu:
            _let_accelerate_see_gloo()
        arguments |= {
            "deepspeed": str(job.directory / DEEPSPEED_FILE),
            "optim": "adamw_torch",
            "bf16": False,  # deepspeed.json has torch_autocast where there is a GPU
            "use_cpu": False,  # with it, accelerate would leave DeepSpeed out without a word
            "ddp_backend": None if has_gpu else "gloo",
        }
    if options.sequence_parallel > 1:
        arguments |= sequence_parallel_arguments(
            options.sequence_parallel, max_tokens=options.max_tokens, has_gpu=has_gpu
        )
    return arguments


def prepared_accelerator(job: Job, passes: int, max_grad_norm: float) -> Accelerator:
    """For a trainer of our own: `passes` are those of a process in one optimizer step. Raises SpecError."""
    arguments = process_arguments(job)
    plugin = None
    if "deepspeed" in arguments:
        plugin = DeepSpeedPlugin(hf_ds_config=arguments["deepspeed"])
        plugin.deepspeed_config |= {
            "train_micro_batch_size_per_gpu": job.spec.options.micro_batch_size,
            "gradient_accumulation_steps": passes,
            "train_batch_size": job.spec.options.micro_batch_size * passes * job.world_size,
            "gradient_clipping": max_grad_norm,
        }
    backend = arguments.get("ddp_backend")
    return Accelerator(
        gradient_accumulation_steps=passes,
        mixed_precision="bf16" if arguments["bf16"] else "no",
        cpu=arguments["use_cpu"],
        deepspeed_plugin=plugin,
        kwargs_handlers=[InitProcessGroupKwargs(backend=backend)] if backend else None,
    )


def _let_accelerate_see_gloo() -> None:
    """Have accelerate count the processes of DeepSpeed on CPUs.

    accelerate 1.15 knows no backend for them, takes each for the only one, and DeepSpeed then refuses the batch size.
    """
    state = accelerate.state.PartialState
    original = state._prepare_backend

    def prepare(
        self: Any, cpu: bool = False, sagemaker_dp: bool = False, backend: str | None = None
    ) -> tuple[str | None, DistributedType]:
        found, kind = original(self, cpu, sagemaker_dp, backend)
        if kind == DistributedType.NO and not cpu and "LOCAL_RANK" in os.environ:
            self.device = torch.device("cpu")
            return "gloo", DistributedType.MULTI_CPU
        return found, kind

    state._prepare_backend = prepare


@contextlib.contextmanager
def before_division() -> Iterator[None]:
    """For passes of a model that ZeRO-3 will divide at the first step: TRL takes it for divided already."""
    original = trl.trainer.utils.maybe_gather_lm_head_ctx
    trl.trainer.utils.maybe_gather_lm_head_ctx = lambda *_: contextlib.nullcontext()
    try:
        yield
    finally:
        trl.trainer.utils.maybe_gather_lm_head_ctx = original


@contextlib.contextmanager
def whole_model(trainer: Any) -> Iterator[Any]:
    """The trained model with all its weights on every rank: ZeRO-3 keeps a share of them on each.

    Every rank must enter, and rank 0 alone may use the model inside: what others wait for happens on leaving.
    """
    if trainer.is_deepspeed_enabled:
        with unwrap_model_for_generation(trainer.model_wrapped, trainer.accelerator) as model:
            yield model
    else:
        yield trainer.accelerator.unwrap_model(trainer.model)
