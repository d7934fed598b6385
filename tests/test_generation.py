"""Publishing, sampling from a real model server, and the comparisons that follow."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from annotation.models import Comparison, Response, ResponseSource
from annotation.services import DomainError
from benchmarks.loop import free_port
from rlhf import generation
from rlhf.models import Checkpoint, CheckpointKind, GenerationJob
from rlhf.services import publish_checkpoint, queue_generation_job, register_base_checkpoint, request_cancel
from rlhf.services.checkpoints import register_checkpoint
from tests.chat_server import chat_server
from tests.factories import make_project, make_prompt, make_source

ROOT = Path(__file__).resolve().parents[1]
pytestmark = [pytest.mark.training, pytest.mark.django_db, pytest.mark.usefixtures("data_dir")]
SAMPLING = {"max_tokens": 12, "temperature": 1.0}


@pytest.fixture(scope="module")
def server(tiny_model: Path) -> Iterator[str]:
    """The model server over the folder of the tiny model; gives its base URL."""
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "rlhf.training.serve", "--port", str(port), "--root", str(tiny_model.parent)], cwd=ROOT
    )
    try:
        ends = time.monotonic() + 120
        while True:
            try:
                httpx.get(f"http://127.0.0.1:{port}/health", timeout=2).raise_for_status()
                break
            except httpx.TransportError:
                assert process.poll() is None and time.monotonic() < ends, "the model server did not start"
                time.sleep(0.2)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        process.terminate()
        process.wait(20)


@pytest.fixture
def source(tiny_model: Path, server: str, settings) -> ResponseSource:  # type: ignore[no-untyped-def]
    settings.MODEL_SERVER_URL = server
    return publish_checkpoint(register_base_checkpoint("tiny", tiny_model))


def run(job: GenerationJob) -> GenerationJob:
    generation.run_generation_job(job.pk)
    job.refresh_from_db()
    return job


def test_each_prompt_gets_two_different_texts_and_a_comparison(source: ResponseSource) -> None:
    project = make_project()
    for number in range(3):
        make_prompt(project, f"What is the weather on day {number}?")
    job = run(queue_generation_job(project=project, source=source, sampling=SAMPLING))
    assert (job.status, job.error, job.response_count) == ("succeeded", "", 6)
    for prompt in project.prompts.all():
        one, two = prompt.responses.order_by("sample_index")
        assert one.text != two.text, "sampling must really be on"
        assert one.seed != two.seed
        assert one.sampling == {"temperature": 1.0, "top_p": 0.95, "max_tokens": 12}
        assert len(one.template_sha256) == 64
        assert one.finish_reason in ("stop", "length")
    assert Comparison.objects.filter(project=project).count() == 3


def test_the_same_seed_gives_the_same_text_again(source: ResponseSource) -> None:
    first, second = make_project(), make_project()
    for project in (first, second):
        make_prompt(project, "Tell me about the weather.")
        run(queue_generation_job(project=project, source=source, sampling=SAMPLING))
    texts = [
        list(Response.objects.filter(prompt__project=p).order_by("sample_index").values_list("text", flat=True))
        for p in (first, second)
    ]
    assert texts[0] == texts[1]


def test_a_run_that_was_cut_short_goes_on_where_it_stopped(source: ResponseSource) -> None:
    project = make_project()
    prompts = [make_prompt(project, f"Question {n}?") for n in range(3)]
    run(queue_generation_job(project=project, source=source, sampling=SAMPLING))
    kept = Response.objects.get(prompt=prompts[0], sample_index=0)
    Comparison.objects.filter(prompt=prompts[1]).delete()
    Response.objects.filter(prompt=prompts[1], sample_index=1).delete()
    job = run(queue_generation_job(project=project, source=source, sampling=SAMPLING))
    assert (job.status, job.response_count) == ("succeeded", 6)
    assert Response.objects.get(prompt=prompts[0], sample_index=0) == kept
    assert Comparison.objects.filter(project=project).count() == 3


def test_a_published_child_is_compared_blind_with_its_parent(source: ResponseSource, tiny_model: Path) -> None:
    project = make_project()
    make_prompt(project)
    make_prompt(project)
    run(queue_generation_job(project=project, source=source, sampling=SAMPLING))
    parent = Checkpoint.objects.get(source=source)
    child = register_checkpoint(name="child", kind=CheckpointKind.POLICY, directory=tiny_model, parent=parent)
    new = publish_checkpoint(child)
    assert publish_checkpoint(child) == new
    job = run(queue_generation_job(project=project, source=new, against=source, sampling=SAMPLING))
    assert job.status == "succeeded"
    pairs = Comparison.objects.filter(project=project, response_b__source=new)
    assert pairs.count() == 4
    for pair in pairs.select_related("response_a", "response_b"):
        assert pair.response_a.source_id == source.pk
        assert pair.response_a.sample_index == pair.response_b.sample_index


def test_a_server_that_stays_away_fails_the_job_with_a_sentence(
    source: ResponseSource,
    settings,  # type: ignore[no-untyped-def]
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings.MODEL_SERVER_URL = f"http://127.0.0.1:{free_port()}/v1"
    monkeypatch.setattr(generation, "SERVER_PATIENCE_SECONDS", 0)
    project = make_project()
    make_prompt(project)
    job = run(queue_generation_job(project=project, source=source))
    assert job.status == "failed"
    assert "cannot be reached" in job.error
    assert "what was stored is kept" in job.error


def test_a_cancelled_generation_stops(source: ResponseSource) -> None:
    project = make_project()
    make_prompt(project)
    job = queue_generation_job(project=project, source=source)
    request_cancel(job)
    assert run(job).status == "cancelled"


def test_what_no_text_and_no_database_can_hold_is_replaced() -> None:
    said = json.dumps({"choices": [{"message": {"content": "a\0b\ud800c\ud83d\ude00"}, "finish_reason": "stop"}]})
    with chat_server() as endpoint, httpx.Client() as client:
        endpoint.reply = lambda exchange: exchange.refuse(200, said)
        completion = generation.complete(client, endpoint.url, "model", [], {})
    assert (completion.text, completion.finish_reason) == ("a\ufffdb\ufffdc\U0001f600", "stop")


def test_what_cannot_be_asked_is_refused(source: ResponseSource) -> None:
    project = make_project()
    with pytest.raises(DomainError, match="no prompts"):
        queue_generation_job(project=project, source=source)
    make_prompt(project)
    with pytest.raises(DomainError, match="imported data"):
        queue_generation_job(project=project, source=make_source("gpt-4"))
    with pytest.raises(DomainError, match="at least 2"):
        queue_generation_job(project=project, source=source, per_prompt=1)
    with pytest.raises(DomainError, match="temprature"):
        queue_generation_job(project=project, source=source, sampling={"temprature": 1})
    assert not GenerationJob.objects.exists()
