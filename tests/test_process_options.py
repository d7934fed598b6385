"""Which processes a job may ask for, the commands that start them, and how they end with the one that started them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from rlhf import launch_commands, launcher
from rlhf.hardware import GPU, parse_gpus
from rlhf.jobspec import JobSpec
from rlhf.options import SpecError, build_options
from tests.test_launcher import is_running, wait_until

TWO = {"processes": 2, "batch_size": 8, "micro_batch_size": 4}


@pytest.mark.parametrize(
    ("method", "options", "words"),
    [
        ("dpo", {"processes": 2}, "launcher python starts one process"),
        ("dpo", {"zero_stage": 2}, "launcher python cannot run zero_stage 2"),
        ("dpo", {"launcher": "deepspeed"}, "launcher deepspeed needs zero_stage 2 or 3"),
        ("dpo", {"zero_stage": 1, "launcher": "torchrun"}, "zero_stage: 1 is not one of 0, 2, 3"),
        ("dpo", {"offload": "cpu", "launcher": "torchrun"}, "offload cpu needs zero_stage 2 or 3"),
        ("dpo", {"launcher": "torchrun", **TWO, "processes": 3}, "batch_size 8 is not a multiple of 12"),
        ("dpo", {"launcher": "torchrun", "hosts": "a,b,a", **TWO}, "hosts: name each of two machines or more once"),
        ("dpo", {"launcher": "torchrun", "hosts": "a; rm -rf /, b", **TWO}, "is not a host name"),
        ("dpo", {"launcher": "torchrun", "hosts": "--help, b", **TWO}, "is not a host name"),
        (
            "dpo",
            {"launcher": "torchrun", "zero_stage": 3, "sequence_parallel": 2, **TWO},
            "supervised fine-tuning only",
        ),
        ("sft", {"launcher": "torchrun", "sequence_parallel": 2, **TWO}, "sequence_parallel needs zero_stage 2 or 3"),
        (
            "sft",
            {"launcher": "torchrun", "zero_stage": 3, "sequence_parallel": 3, **TWO},
            "sequence_parallel 3 does not divide the 2 processes",
        ),
    ],
)
def test_a_combination_that_cannot_run_is_refused_by_name(method: str, options: dict[str, Any], words: str) -> None:
    with pytest.raises(SpecError) as error:
        build_options(method, options)
    assert words in str(error.value)


@pytest.mark.parametrize(
    ("options", "gpus", "words"),
    [
        ({"offload": "cpu", "zero_stage": 2, "launcher": "torchrun"}, 0, "offload cpu moves the optimizer's state"),
        ({"launcher": "accelerate", **TWO}, 0, "choose torchrun"),
        ({"launcher": "torchrun", **TWO}, 1, "processes 2 need a GPU each"),
    ],
)
def test_what_the_machine_cannot_do_is_refused_by_name(options: dict[str, Any], gpus: int, words: str) -> None:
    with pytest.raises(SpecError) as error:
        launch_commands.check_hardware(build_options("dpo", options), gpus)
    assert words in str(error.value)


def test_vllm_is_refused_without_a_gpu() -> None:
    options = build_options("grpo", {"rule": "length", "rule_argument": "20", "use_vllm": True})
    with pytest.raises(SpecError, match="use_vllm needs a GPU; without it transformers writes the responses"):
        launch_commands.check_hardware(options, 0)
    launch_commands.check_hardware(options, 1)


def commands(tmp_path: Path, gpus: list[int] | None = None, **options: Any) -> list[tuple[str, str]]:
    """(host, what follows `python -m`) for each machine."""
    spec = JobSpec(job_id=1, method="dpo", base_model_dir="/nowhere", options=build_options("dpo", options))
    launcher.prepare(tmp_path, spec, [], [])
    found = launcher.host_commands(tmp_path, gpus)
    assert all(command[:2] == [sys.executable, "-m"] for _, command in found)
    return [(host, " ".join(command[2:]).replace(str(tmp_path), "JOB")) for host, command in found]


def test_each_launcher_has_its_command(tmp_path: Path) -> None:
    assert commands(tmp_path) == [("", "rlhf.training.dpo JOB")]
    assert commands(tmp_path, launcher="torchrun", zero_stage=2, **TWO) == [
        ("", "torch.distributed.run --nproc_per_node 2 --standalone --local_addr 127.0.0.1 -m rlhf.training.dpo JOB")
    ]
    assert commands(tmp_path, launcher="accelerate", zero_stage=3, **TWO) == [
        ("", "accelerate.commands.launch --config_file JOB/accelerate.json -m rlhf.training.dpo JOB")
    ]
    config = json.loads((tmp_path / "accelerate.json").read_text())
    assert (config["distributed_type"], config["num_processes"], config["main_process_port"]) == ("DEEPSPEED", 2, 0)
    [(_, deepspeed)] = commands(tmp_path, launcher="deepspeed", zero_stage=3, **TWO)
    assert deepspeed.startswith("deepspeed.launcher.runner --master_addr 127.0.0.1 --master_port ")
    assert deepspeed.endswith(" --num_gpus 2 --module rlhf.training.dpo JOB")
    [(_, deepspeed)] = commands(tmp_path, gpus=[3, 5], launcher="deepspeed", zero_stage=3, **TWO)
    assert " --include localhost:3,5 --module" in deepspeed


@pytest.mark.parametrize("name", ["torchrun", "accelerate", "deepspeed"])
def test_each_of_several_machines_has_its_command(tmp_path: Path, name: str) -> None:
    found = commands(tmp_path, launcher=name, zero_stage=2, hosts="node-1, node-2", **{**TWO, "batch_size": 16})
    assert [host for host, _ in found] == ["node-1", "node-2"]
    for rank, (_, command) in enumerate(found):
        assert f"{'--machine_rank' if name == 'accelerate' else '--node_rank'} {rank} " in command
        if name != "accelerate":
            assert "--master_addr node-1 --master_port 29500" in command
    if name == "accelerate":
        config = json.loads((tmp_path / "accelerate.json").read_text())
        assert (config["num_machines"], config["num_processes"], config["main_process_ip"]) == (2, 4, "node-1")
    if name == "deepspeed":
        assert (tmp_path / "hostfile").read_text() == "node-1 slots=2\nnode-2 slots=2\n"


def test_deepspeed_is_told_what_the_options_say(tmp_path: Path) -> None:
    options = build_options("dpo", {"launcher": "torchrun", "zero_stage": 3, "offload": "cpu", **TWO})
    on_gpu = launch_commands.deepspeed_config(options, has_gpu=True)
    assert on_gpu["zero_optimization"]["stage"] == 3
    assert on_gpu["zero_optimization"]["offload_optimizer"]["device"] == "cpu"
    assert on_gpu["torch_autocast"]["dtype"] == "bfloat16"
    assert "torch_autocast" not in launch_commands.deepspeed_config(options, has_gpu=False)
    assert any("float32" in note for note in launch_commands.notes(options, 0))
    assert not any("float32" in note for note in launch_commands.notes(options, 2))


def test_gpus_are_read_from_nvidia_smi() -> None:
    text = "0, GPU-aa, NVIDIA A100-SXM4-80GB, 81920\n1, GPU-bb, NVIDIA A100-SXM4-80GB, 81920\nNo devices were found\n"
    assert parse_gpus(text) == (
        GPU(0, "GPU-aa", "NVIDIA A100-SXM4-80GB", 85.9),
        GPU(1, "GPU-bb", "NVIDIA A100-SXM4-80GB", 85.9),
    )


@pytest.mark.parametrize("levels", [0, 1], ids=["started by the launcher", "with a process between"])
def test_ranks_end_with_their_launcher(tmp_path: Path, levels: int) -> None:
    """As torchrun and deepspeed start them: in sessions of their own, the latter behind a further process."""
    pid_file = tmp_path / "pid"
    rank = (
        "import os, time; from pathlib import Path; from rlhf.tied import die_with_parent; die_with_parent();"
        f"Path({str(pid_file)!r}).write_text(str(os.getpid()) + chr(10)); time.sleep(600)"
    )
    between = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {rank!r}])"
    started = between if levels else rank
    agent = (
        f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {started!r}], start_new_session=True).wait()"
    )
    process = subprocess.Popen(
        [sys.executable, "-m", "rlhf.tied", sys.executable, "-c", agent],
        env=os.environ | {"TOUCHSTONE_PARENT_PID": str(os.getpid())},
        cwd=launcher.PROJECT_ROOT,
    )
    try:
        wait_until(lambda: pid_file.exists() and pid_file.read_text().endswith("\n"))
        pid = int(pid_file.read_text())
        assert is_running(pid)
        process.send_signal(signal.SIGKILL)
        process.wait()
        wait_until(lambda: not is_running(pid))
    finally:
        process.kill()
