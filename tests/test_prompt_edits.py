"""Edits of many prompts: what they change, what follows, and taking the last one back."""

from __future__ import annotations

import threading

import pytest
from django.contrib.auth.models import User
from django.db import connection, transaction

from annotation import services
from annotation.browse import PromptFilter
from annotation.models import (
    Comparison,
    ComparisonEntry,
    DataJob,
    DataJobStatus,
    Event,
    EventKind,
    Project,
    Prompt,
    PromptBefore,
)
from annotation.services import data_jobs, prompts, refresh_browse_index
from annotation.services.prompts import PromptEdit, last_edit, start_edit, start_undo
from tests.factories import make_annotator, make_comparison, make_project, make_prompt, make_user

pytestmark = pytest.mark.django_db


@pytest.fixture
def user() -> User:
    return make_user()


@pytest.fixture
def project() -> Project:
    return make_project()


def state_of(project: Project) -> list[tuple[object, ...]]:
    rows = Prompt.objects.filter(project=project).order_by("pk")
    return [(row.task, row.lang, row.skill, row.topic, sorted(row.tags), row.archived_at is not None) for row in rows]


def test_an_edit_sets_what_it_names_and_leaves_the_rest(project: Project, user: User) -> None:
    first, second, third = (make_prompt(project) for _ in range(3))
    Prompt.objects.filter(pk=first.pk).update(tags=["old", "kept"], topic="rain")
    edit = PromptEdit(task="code", lang="", add_tags=("new",), remove_tags=("old",))
    job = start_edit(project, edit, ids=[first.pk, second.pk], user=user)
    assert (job.status, job.result) == (DataJobStatus.DONE, {"changed": 2})
    assert state_of(project) == [
        ("code", "", "", "rain", ["kept", "new"], False),
        ("code", "", "", "", ["new"], False),
        ("", third.lang, "", "", [], False),
    ]
    event = Event.objects.get(kind=EventKind.EDIT, project=project)
    assert event.data == {
        "what": "prompts",
        "count": 2,
        "task": "code",
        "lang": "",
        "add_tags": ["new"],
        "remove_tags": ["old"],
    }


def test_undo_brings_back_each_prompts_own_values_once(project: Project, user: User) -> None:
    rows = [make_prompt(project) for _ in range(3)]
    Prompt.objects.filter(pk=rows[0].pk).update(task="chat", tags=["a"])
    before = state_of(project)
    start_edit(project, PromptEdit(task="code"), ids=[rows[2].pk], user=user)
    between = state_of(project)
    start_edit(project, PromptEdit(task="code", topic="x", archive=True), ids=[row.pk for row in rows], user=user)
    assert last_edit(project) is not None
    job = start_undo(project, user=user)
    assert job.result == {"changed": 3}
    assert state_of(project) == between != before
    assert last_edit(project) is None, "the edit before the last one cannot be taken back"
    with pytest.raises(services.DomainError):
        start_undo(project, user=user)
    assert not PromptBefore.objects.exists()


def test_comparisons_follow_their_prompt_and_archived_ones_are_not_handed_out(project: Project, user: User) -> None:
    kept, away = make_comparison(project), make_comparison(project)
    withdrawn = make_comparison(project, prompt=away.prompt)
    Comparison.objects.filter(pk=withdrawn.pk).update(is_withdrawn=True)
    start_edit(project, PromptEdit(lang="zh", skill="law", archive=True), ids=[away.prompt_id], user=user)
    away.refresh_from_db()
    assert (away.lang, away.skill, away.is_withdrawn) == ("zh", "law", True)
    judge = make_user()
    services.add_member(project, judge)
    handed_out = services.claim_assignments(annotator=make_annotator(judge), project=project)
    assert [assignment.comparison_id for assignment in handed_out] == [kept.pk]
    assert ComparisonEntry.objects.get(pk=away.pk).state == 4

    start_edit(project, PromptEdit(archive=False), ids=[away.prompt_id], user=user)
    away.refresh_from_db()
    withdrawn.refresh_from_db()
    assert not away.is_withdrawn
    assert withdrawn.is_withdrawn, "what was withdrawn for another reason stays so"


def test_new_comparisons_of_an_archived_prompt_wait_for_it_to_come_back(project: Project, user: User) -> None:
    prompt = make_prompt(project)
    start_edit(project, PromptEdit(archive=True), ids=[prompt.pk], user=user)
    comparison = make_comparison(project, prompt=prompt)
    assert comparison.is_withdrawn
    start_undo(project, user=user)
    comparison.refresh_from_db()
    assert not comparison.is_withdrawn


def test_a_new_topic_moves_comparisons_to_its_place_in_the_queue(project: Project, user: User) -> None:
    Project.objects.filter(pk=project.pk).update(topic_batches=True)
    first, second = make_comparison(project), make_comparison(project)
    start_edit(project, PromptEdit(topic="rain"), ids=[first.prompt_id, second.prompt_id], user=user)
    keys = Comparison.objects.filter(project=project).values_list("queue_key", flat=True)
    assert max(keys) - min(keys) < 1e-6, "one after the other"


def test_everything_that_matches_is_edited_and_nothing_else(project: Project, user: User) -> None:
    for text in ("rain today", "rain tomorrow", "snow"):
        make_prompt(project, text)
    other = make_prompt(make_project(), "rain elsewhere")
    refresh_browse_index()
    start_edit(project, PromptEdit(topic="weather"), given=PromptFilter(query="rain"), user=user)
    assert [row[3] for row in state_of(project)] == ["weather", "weather", ""]
    other.refresh_from_db()
    assert other.topic == ""


def test_ids_of_another_project_are_passed_over(project: Project, user: User) -> None:
    mine, other = make_prompt(project), make_prompt(make_project())
    start_edit(project, PromptEdit(task="x"), ids=[mine.pk, other.pk], user=user)
    other.refresh_from_db()
    assert other.task == ""


@pytest.mark.parametrize(
    ("edit", "ids", "given"),
    [
        (PromptEdit(), [1], None),
        (PromptEdit(task="x"), [], None),
        (PromptEdit(task="x"), None, PromptFilter(query="the of")),
        (PromptEdit(task="x"), None, PromptFilter(task="no such task")),
    ],
)
def test_an_edit_of_nothing_is_refused(
    project: Project, user: User, edit: PromptEdit, ids: list[int] | None, given: PromptFilter | None
) -> None:
    make_prompt(project)
    with pytest.raises(services.DomainError):
        start_edit(project, edit, ids=ids, given=given, user=user)
    assert not DataJob.objects.exists()


def test_a_large_edit_is_a_job_that_survives_its_worker(
    project: Project, user: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prompts, "AT_ONCE_UP_TO", 2)
    monkeypatch.setattr(prompts, "BATCH_ROWS", 2)
    for _ in range(4):
        make_comparison(project)
    refresh_browse_index()
    make_comparison(project)  # not in the index yet: a worker takes it in first
    before = state_of(project)
    job = start_edit(project, PromptEdit(archive=True), given=PromptFilter(), user=user)
    assert job.status == DataJobStatus.QUEUED
    with pytest.raises(services.ConflictError):
        start_edit(project, PromptEdit(task="x"), ids=[Prompt.objects.filter(project=project)[0].pk], user=user)

    # The worker dies after the first batch of prompts, before their comparisons follow.
    def die(ids: list[int]) -> None:
        raise SystemExit

    with monkeypatch.context() as patch:
        patch.setattr(prompts, "sync_comparisons", die)
        with pytest.raises(SystemExit):
            data_jobs.run_data_job(job.pk, beats=False)
    assert DataJob.objects.get(pk=job.pk).status == DataJobStatus.RUNNING
    refresh_browse_index()
    DataJob.objects.filter(pk=job.pk).update(heartbeat_at="2020-01-01T00:00Z")
    data_jobs.resume_data_jobs()
    data_jobs.run_data_job(job.pk, beats=False)
    data_jobs.run_data_job(job.pk, beats=False)  # a second message finds nothing to do
    job.refresh_from_db()
    assert (job.status, job.attempt, job.result) == (DataJobStatus.DONE, 2, {"changed": 5})
    assert not Prompt.objects.filter(project=project, archived_at=None).exists()
    assert not Comparison.objects.filter(project=project, is_withdrawn=False).exists()

    undo = start_undo(project, user=user)
    data_jobs.run_data_job(undo.pk, beats=False)
    assert state_of(project) == before
    assert not Comparison.objects.filter(project=project, is_withdrawn=True).exists()


def test_a_stopped_edit_keeps_what_it_did_and_can_be_taken_back(
    project: Project, user: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prompts, "BATCH_ROWS", 2)
    ids = [make_prompt(project).pk for _ in range(6)]
    job = data_jobs.start_data_job(
        project,
        "edit",
        {"edit": {"task": "code"}, "ids": ids},
        user=user,
        at_once=False,  # type: ignore[arg-type]
    )
    real = prompts.sync_comparisons

    def ask_to_stop(batch: list[int]) -> None:
        real(batch)
        progress.is_stopping = ids[3] in batch

    progress = data_jobs.Progress()
    monkeypatch.setattr(prompts, "sync_comparisons", ask_to_stop)
    monkeypatch.setattr(data_jobs, "Progress", lambda total: progress)
    data_jobs.run_data_job(job.pk, beats=False)
    job.refresh_from_db()
    assert (job.status, job.done) == (DataJobStatus.STOPPED, 4)
    assert Prompt.objects.filter(project=project, task="code").count() == 4
    assert Event.objects.get(kind=EventKind.EDIT, project=project).data["count"] == 4
    monkeypatch.undo()
    start_undo(project, user=user)
    assert not Prompt.objects.filter(project=project, task="code").exists()


def test_a_queued_job_is_stopped_at_once_and_lost_ones_fail_after_three_times(project: Project, user: User) -> None:
    job = data_jobs.start_data_job(project, "scan", {}, user=user, at_once=False)  # type: ignore[arg-type]
    assert data_jobs.stop_data_job(job)
    data_jobs.run_data_job(job.pk, beats=False)
    job.refresh_from_db()
    assert job.status == DataJobStatus.STOPPED
    assert not data_jobs.stop_data_job(job)
    lost = data_jobs.start_data_job(project, "scan", {}, user=user, at_once=False)  # type: ignore[arg-type]
    DataJob.objects.filter(pk=lost.pk).update(status="running", attempt=3, heartbeat_at="2020-01-01T00:00Z")
    data_jobs.resume_data_jobs()
    lost.refresh_from_db()
    assert lost.status == DataJobStatus.FAILED
    assert "three times" in lost.error


@pytest.mark.django_db(transaction=True)
def test_the_heartbeat_tells_of_progress_inside_an_open_transaction_and_brings_the_wish_to_stop() -> None:
    project = make_project()
    make_prompt(project)
    job = data_jobs.start_data_job(project, "scan", {}, user=make_user(), at_once=False)  # type: ignore[arg-type]
    seen = threading.Event()

    def work(running: DataJob, progress: data_jobs.Progress) -> dict[str, object]:
        with transaction.atomic():
            for done in range(10_000):
                progress.at(done)
                connection.cursor().execute("SELECT pg_sleep(0.01)")
                if not seen.is_set() and DataJob.objects.get(pk=running.pk).done > 0:
                    seen.set()
                    threading.Thread(target=ask).start()
        return {}

    def ask() -> None:
        data_jobs.stop_data_job(job)
        connection.close()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(data_jobs, "BEAT_SECONDS", 0.02)
        patch.setattr(data_jobs, "_work_of", lambda _: work)
        data_jobs.run_data_job(job.pk)
    job.refresh_from_db()
    assert seen.is_set()
    assert job.status == DataJobStatus.STOPPED
    assert 0 < job.done < 9_999
