"""How the processes of one job are started: the command line of each launcher, and the files that it reads.

Standard library only. Single-machine commands meet on an ephemeral port of the loopback interface; where hosts are
named, each runs its own command and they meet at the first one.
"""

from __future__ import annotations

import socket
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rlhf.hardware import hardware
from rlhf.jobspec import write_json_atomically
from rlhf.options import SpecError, TrainingOptions, host_list

DEEPSPEED_FILE = "deepspeed.json"
ACCELERATE_FILE = "accelerate.json"
HOSTS_FILE = "hostfile"
MULTI_HOST_PORT = 29_500


def check_hardware(options: TrainingOptions, gpus: int) -> None:
    """Raise SpecError, naming the option, for what a machine with so many GPUs cannot do."""
    if gpus and options.processes > gpus:
        raise SpecError(f"processes {options.processes} need a GPU each; the job asks for {gpus}")
    if not gpus and options.offload == "cpu":
        raise SpecError(
            "offload cpu moves the optimizer's state from a GPU into main memory; without a GPU it is there already"
        )
    if not gpus and options.launcher == "accelerate" and options.processes > 1 and not options.zero_stage:
        raise SpecError(
            "launcher accelerate starts one process on a machine without GPUs unless zero_stage is 2 or 3; "
            "choose torchrun"
        )
    if not gpus and getattr(options, "use_vllm", False):
        raise SpecError("use_vllm needs a GPU; without it transformers writes the responses")


def notes(options: TrainingOptions, gpus: int) -> list[str]:
    """What a person should know about how these options will run, one sentence each."""
    said = []
    if options.zero_stage and options.bf16 and not gpus:
        said.append("Without a GPU, DeepSpeed trains in float32: the option bf16 has no effect.")
    if options.zero_stage == 3:
        said.append("Each process holds the whole model once while it loads, before ZeRO-3 divides it.")
    if options.sequence_parallel > 1:
        said.append("Under sequence parallelism nothing is evaluated while it trains, nor at the end.")
    if len(host_list(options)) > 1:
        said.append(
            "The worker starts the first host's command only. Start the others by hand, "
            "with this job directory at the same path."
        )
    return said


def write_launch_files(job_dir: Path, options: TrainingOptions, gpus: int | None = None) -> None:
    """Write the configuration files that `commands` names."""
    gpus = len(hardware().gpus) if gpus is None else gpus
    hosts = host_list(options)
    if options.zero_stage:
        write_json_atomically(job_dir / DEEPSPEED_FILE, deepspeed_config(options, has_gpu=gpus > 0))
    if options.launcher == "accelerate":
        write_json_atomically(job_dir / ACCELERATE_FILE, _accelerate_config(job_dir, options, has_gpu=gpus > 0))
    if options.launcher == "deepspeed" and len(hosts) > 1:
        lines = "".join(f"{host} slots={options.processes}\n" for host in hosts)
        (job_dir / HOSTS_FILE).write_text(lines)


def commands(
    job_dir: Path, method: str, options: TrainingOptions, gpus: Sequence[int] | None = None
) -> list[tuple[str, list[str]]]:
    """(host, command) of every machine that takes part; the host is "" where there is only this one.

    `gpus` are the indices of those that the job may use here; None leaves that to the environment.
    """
    hosts = host_list(options)
    return [(host, _command(job_dir, method, options, rank, gpus)) for rank, host in enumerate(hosts or [""])]


def _command(job_dir: Path, method: str, options: TrainingOptions, rank: int, gpus: Sequence[int] | None) -> list[str]:
    hosts = host_list(options)
    program = [f"rlhf.training.{method}", str(job_dir)]
    python = [sys.executable, "-m"]
    several = len(hosts) > 1
    if options.launcher == "torchrun":
        if several:
            meeting = ["--nnodes", str(len(hosts)), "--node_rank", str(rank)]
            meeting += ["--master_addr", hosts[0], "--master_port", str(MULTI_HOST_PORT)]
        else:
            meeting = ["--standalone", "--local_addr", "127.0.0.1"]
        return [*python, "torch.distributed.run", "--nproc_per_node", str(options.processes), *meeting, "-m", *program]
    if options.launcher == "accelerate":
        place = ["--machine_rank", str(rank)] if several else []
        config = ["--config_file", str(job_dir / ACCELERATE_FILE)]
        return [*python, "accelerate.commands.launch", *config, *place, "-m", *program]
    if options.launcher == "deepspeed":
        if several:
            meeting = ["--hostfile", str(job_dir / HOSTS_FILE), "--no_ssh", "--node_rank", str(rank)]
            meeting += ["--master_addr", hosts[0], "--master_port", str(MULTI_HOST_PORT)]
        else:
            meeting = ["--master_addr", "127.0.0.1", "--master_port", str(_free_port())]
            # It ignores CUDA_VISIBLE_DEVICES where it is told a number.
            given = ",".join(str(index) for index in gpus or [])
            meeting += ["--include", f"localhost:{given}"] if given else ["--num_gpus", str(options.processes)]
        return [*python, "deepspeed.launcher.runner", *meeting, "--module", *program]
    return [*python, *program]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def deepspeed_config(options: TrainingOptions, *, has_gpu: bool) -> dict[str, Any]:
    """DeepSpeed's configuration; "auto" values are filled from the trainer's arguments.

    overlap_comm is off: with it, losses of exactly 0 were reported after checkpoints.
    """
    zero: dict[str, Any] = {"stage": options.zero_stage, "overlap_comm": False, "contiguous_gradients": True}
    if options.zero_stage == 3:
        # A checkpoint then holds the whole model in safetensors beside the ranks' optimizer states.
        zero["stage3_gather_16bit_weights_on_model_save"] = True
    if options.offload == "cpu":
        zero["offload_optimizer"] = {"device": "cpu", "pin_memory": True}
        if options.zero_stage == 3:
            zero["offload_param"] = {"device": "cpu", "pin_memory": True}
    config: dict[str, Any] = {
        "train_batch_size": "auto",
        "train_micro_batch_size_per_gpu": "auto",
        "gradient_accumulation_steps": "auto",
        "gradient_clipping": "auto",
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        "zero_optimization": zero,
    }
    if options.bf16 and has_gpu:
        # As everywhere here: bfloat16 arithmetic over float32 weights.
        config["torch_autocast"] = {"enabled": True, "dtype": "bfloat16"}
    return config


def _accelerate_config(job_dir: Path, options: TrainingOptions, *, has_gpu: bool) -> dict[str, Any]:
    hosts = host_list(options)
    world = options.processes * max(len(hosts), 1)
    config: dict[str, Any] = {
        "compute_environment": "LOCAL_MACHINE",
        "distributed_type": "MULTI_GPU" if has_gpu and world > 1 else "NO",
        "num_processes": world,
        "num_machines": max(len(hosts), 1),
        "machine_rank": 0,
        "main_process_port": MULTI_HOST_PORT if len(hosts) > 1 else 0,
        "main_process_ip": hosts[0] if len(hosts) > 1 else None,
        "use_cpu": False,
        "rdzv_backend": "static",
    }
    if options.zero_stage:
        # Not beside a field for the precision, which the trainer's arguments settle: accelerate refuses the two.
        config["distributed_type"] = "DEEPSPEED"
        config["deepspeed_config"] = {
            "deepspeed_config_file": str(job_dir / DEEPSPEED_FILE),
            "zero3_init_flag": False,
            "deepspeed_multinode_launcher": "standard",
        }
    return config
