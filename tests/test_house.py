"""The rules of the house that no type checker sees."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
TRAINING_STACK = {"torch", "transformers", "trl", "deepspeed", "peft", "accelerate", "datasets"}
WEB_STACK = {"django", "celery", "rest_framework", "annotation", "config"}


def modules_after(code: str) -> set[str]:
    """Names of the top-level modules that a clean interpreter holds after running the code."""
    code += "\nimport json, sys\nprint(json.dumps(sorted({name.split('.')[0] for name in sys.modules})))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout.splitlines()[-1]))


def web_modules() -> list[str]:
    """Every module of the web side: what gunicorn and the Celery workers may import."""
    names = []
    for package in ("config", "annotation", "rlhf"):
        for path in sorted((ROOT / package).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            if parts[:2] != ("rlhf", "training") and "migrations" not in parts:
                names.append(".".join(parts).removesuffix(".__init__"))
    return names


@pytest.mark.slow
def test_the_web_side_loads_no_training_code() -> None:
    names = web_modules()
    assert {"config.wsgi", "config.celery", "rlhf.services", "annotation.pages.compare"} <= set(names)
    imports = "\n".join(f"import {name}" for name in names if name != "config.wsgi")
    assert not modules_after(f"import config.wsgi\n{imports}") & TRAINING_STACK


@pytest.mark.parametrize("name", ["rlhf.jobspec", "rlhf.options", "rlhf.launcher"])
def test_the_seam_loads_only_the_standard_library(name: str) -> None:
    assert not modules_after(f"import {name}") & (TRAINING_STACK | WEB_STACK)


@pytest.mark.slow
@pytest.mark.training
def test_the_training_side_loads_no_web_code() -> None:
    paths = sorted((ROOT / "rlhf" / "training").rglob("*.py"))
    names = [".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__") for path in paths]
    assert "rlhf.training.serve" in names
    loaded = modules_after("\n".join(f"import {name}" for name in names))
    assert "torch" in loaded
    assert not loaded & WEB_STACK


def test_imports_follow_the_arrows() -> None:
    lint = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([lint, "--no-logo"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_setting_read_from_the_environment_is_in_the_example() -> None:
    read = set(re.findall(r"env\.\w+\(\s*[\"']([A-Z_]+)[\"']", (ROOT / "config" / "settings.py").read_text()))
    shown = set(re.findall(r"^# ([A-Z_]+)=", (ROOT / ".env.example").read_text(), re.MULTILINE))
    assert "DATABASE_URL" in read
    assert read == shown


def test_only_settings_read_the_environment() -> None:
    """A process's environment is passed on in a few places; what the site does is decided in settings.py."""
    passes_on = {"config/settings.py", "config/wsgi.py", "config/celery.py"}
    about_processes = ("rlhf/training/", "rlhf/launcher.py", "rlhf/tied.py", "rlhf/hardware.py")
    for package in ("config", "annotation", "rlhf"):
        for path in (ROOT / package).rglob("*.py"):
            name = path.relative_to(ROOT).as_posix()
            if name not in passes_on and not name.startswith(about_processes):
                assert "os.environ" not in path.read_text(), name
                assert "getenv" not in path.read_text(), name
