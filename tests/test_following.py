"""Commands that follow a job: they do its work where no worker takes it, and Ctrl-C gives it back whole."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command

from rlhf.management import following
from rlhf.models import GenerationJob, JobStatus, TrainingJob
from rlhf.services import create_snapshot, register_base_checkpoint
from rlhf.supervisor import worker_is_stopping
from tests.chat_server import Exchange, chat_server
from tests.factories import make_judged_project, make_project, make_prompt
from tests.judging import make_judge

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("data_dir", "_alone")]


@pytest.fixture
def _alone(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No worker is waited for, and one test's Ctrl-C does not stop the next."""
    monkeypatch.setattr(following, "WORKER_WAIT_SECONDS", 0)
    yield
    worker_is_stopping.clear()


class Impatient(io.StringIO):
    """Somebody who reads what a command says and presses Ctrl-C at certain words."""

    def __init__(self, words: str) -> None:
        super().__init__()
        self.words = words

    def write(self, text: str) -> int:
        count = super().write(text)
        if re.search(self.words, text):
            raise KeyboardInterrupt
        return count


def answer_the_first_prompt(exchange: Exchange) -> None:
    """Others are answered when the worker stops, so that nothing but the command's reader decides when."""
    if "Question 0?" not in exchange.body["messages"][-1]["content"]:
        worker_is_stopping.wait(60)
    answer(exchange)


def answer(exchange: Exchange) -> None:
    message = {"role": "assistant", "content": f"Answer {exchange.body['seed']}."}
    exchange.start("application/json")
    exchange.send(json.dumps({"choices": [{"message": message, "finish_reason": "stop"}]}).encode())
    exchange.send(b"")


def test_generate_works_itself_and_goes_on_after_ctrl_c() -> None:
    project = make_project("asked")
    for number in range(2):
        make_prompt(project, f"Question {number}?")
    with chat_server() as server:
        server.reply = answer_the_first_prompt
        said: dict[str, Any] = {"source": make_judge(server, "writer").name, "project": project.slug}
        heard = Impatient("2 of 4 responses")
        with pytest.raises(CommandError, match=r"generation \d+ queued: run the same command to go on"):
            call_command("generate", stderr=heard, **said)
        assert "no worker has taken it, working here" in heard.getvalue()
        assert "stopping; run the same command to go on" in heard.getvalue()
        first = GenerationJob.objects.get()
        assert (first.status, first.owner, first.response_count >= 2) == (JobStatus.QUEUED, "", True)
        stored = set(project.prompts.values_list("responses__pk", flat=True)) - {None}
        worker_is_stopping.clear()  # as in a process of its own
        server.reply = answer
        out = io.StringIO()
        call_command("generate", json=True, stdout=out, stderr=io.StringIO(), **said)
    assert json.loads(out.getvalue())["responses"] == 4 - len(stored), "what was stored is not asked for again"
    assert stored < set(project.prompts.values_list("responses__pk", flat=True)) or len(stored) == 4


@pytest.mark.slow
@pytest.mark.training
def test_train_gives_the_job_back_with_a_checkpoint_after_ctrl_c(tiny_model: Path) -> None:
    register_base_checkpoint("tiny", tiny_model)
    create_snapshot(make_judged_project(), "polite", eval_share=0.25)
    heard = Impatient(r"step [1-9]\d* of 5000")
    with pytest.raises(CommandError, match="has not ended; a worker goes on with it"):
        call_command(
            "train",
            method="sft",
            snapshot="polite",
            base="tiny",
            wait=True,
            proceed=True,
            settings_given=["max_steps=5000", "micro_batch_size=4", "bf16=no"],
            stderr=heard,
        )
    assert "stopping; it goes back to the queue" in heard.getvalue()
    job = TrainingJob.objects.get()
    assert (job.status, job.owner) == (JobStatus.QUEUED, "")
    assert job.resume_from.startswith("step-")
