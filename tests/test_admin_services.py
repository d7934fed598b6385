"""What the staff pages ask of the services: prompts in bulk, members, a full disk, a broker that is away."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from uuid import uuid4

import pytest
from django.core.files.storage import storages

from annotation import services
from annotation.answer import Answer
from annotation.models import Assignment
from annotation.prompt_lines import PromptLinesError, read_prompts
from annotation.services import DomainError
from annotation.vote_counts import Sway, count_sway, opponents_of
from rlhf.models import DatasetSnapshot
from rlhf.services import broker_is_up, create_snapshot
from tests import factories

pytestmark = pytest.mark.django_db


def test_plain_lines_and_json_lines_become_prompts_once() -> None:
    project = factories.make_project()
    assert services.add_prompts(project, read_prompts("What is rain?\r\n\r\nWhat is snow?\r\n")) == 2
    conversation = [
        {"role": "user", "content": "7 + 5 = 13, right?"},
        {"role": "assistant", "content": "No: 12.\u2028Sure."},
        {"role": "user", "content": "My teacher said so."},
    ]
    lines = [
        json.dumps({"prompt": "What is rain?"}),
        json.dumps({"messages": conversation, "task": "math", "tags": "format:table; easy"}, ensure_ascii=False),
    ]
    assert services.add_prompts(project, read_prompts("\n".join(lines))) == 1
    prompt = project.prompts.get(task="math")
    assert (prompt.messages, prompt.tags) == (conversation, ["easy", "format:table"])


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ('{"prompt": ', "not valid JSON"),
        ('{"promt": "x"}', "unknown key 'promt'"),
        ('{"prompt": "x", "messages": []}', "give either"),
        ('{"prompt": "  "}', "not empty"),
        ('{"messages": [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}]}', "last message"),
        ('{"messages": [{"role": "judge", "content": "x"}]}', "role 'judge'"),
        ('{"prompt": "\\ud800"}', "half of a character"),
        ('{"prompt": "x", "tags": ["fine", 7]}', '"tags" is 7, not text'),
        ("just text", "not valid JSON"),
    ],
)
def test_a_line_that_cannot_be_used_is_named_and_nothing_is_read(line: str, reason: str) -> None:
    with pytest.raises(PromptLinesError) as caught:
        read_prompts('{"prompt": "good"}\n' + line)
    assert caught.value.sentences[0].startswith("Line 2: ")
    assert reason in caught.value.sentences[0]


def test_a_removed_member_gives_back_what_they_held_in_that_project_only() -> None:
    user = factories.make_user()
    here, elsewhere = factories.make_project(members=[user]), factories.make_project(members=[user])
    for project in (here, elsewhere):
        factories.make_comparison(project)
        services.claim_assignments(annotator=services.annotator_for(user), project=project)
    assert services.remove_member(here, user) == 1
    assert list(Assignment.objects.filter(status="leased").values_list("project_id", flat=True)) == [elsewhere.pk]
    assert not here.members.exists()
    assert here.comparisons.get().assigned_count == 0


def test_a_full_disk_leaves_no_data_set_behind(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project = factories.make_project()
    for _ in range(4):
        factories.make_judgment(factories.make_comparison(project))
    storage = storages["snapshots"]
    real_save = type(storage)._save

    def save_half(self: object, name: str, content: object) -> str:
        if name.endswith("train.jsonl"):
            return real_save(self, name, content)
        Path(self.path(name)).write_bytes(b"half")  # type: ignore[attr-defined]
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch, pytest.raises(DomainError, match=r"No space left on device.*are safe"):
        patch.setattr(type(storage), "_save", save_half)
        create_snapshot(project, "round-1", eval_share=0.25)
    assert not DatasetSnapshot.objects.exists()
    assert [path for path in (data_dir / "snapshots").rglob("*") if path.is_file()] == []
    assert create_snapshot(project, "round-1", eval_share=0.25).train_rows == 3


def test_a_file_that_a_crash_cut_short_is_written_again(data_dir: Path) -> None:
    project = factories.make_project()
    factories.make_judgment(factories.make_comparison(project))
    first = create_snapshot(project, "round-1")
    path = data_dir / "snapshots" / first.sha256 / "train.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole[:10])
    create_snapshot(project, "round-2")
    assert path.read_bytes() == whole


def test_a_broker_that_is_away_is_seen() -> None:
    assert broker_is_up() is False  # tests start none


def test_sides_and_lengths_are_counted_as_the_person_saw_them() -> None:
    user = factories.make_user()
    project = factories.make_project(members=[user])
    annotator = services.annotator_for(user)
    for _ in range(6):
        factories.make_comparison(project, a_text="short", b_text="a longer one")
    lefts = longers = 0
    while leased := services.claim_assignments(annotator=annotator, project=project):
        assignment = leased[0]
        judgment = services.submit_judgment(
            assignment_id=assignment.public_id, annotator=annotator, judgment_id=uuid4(), answer=Answer(choice="-2")
        )
        lefts += 1
        longers += judgment.preference == "b"
    factories.make_judgment(factories.make_comparison(project, a_text="long text", b_text="x"), "a")  # imported
    factories.make_judgment(factories.make_comparison(project), "tie")
    assert count_sway(project) == Sway(left_chosen=lefts, shown=6, longer_chosen=longers + 1, unequal=7)


def test_opponents_are_those_that_people_judged_against_most_votes_first() -> None:
    project, elsewhere = factories.make_project(), factories.make_project()
    new, old, other = (factories.make_source(name) for name in ("new", "old", "other"))
    for where, pair in (
        (project, (new, old)),
        (project, (old, new)),
        (elsewhere, (other, new)),
        (project, (new, new)),
    ):
        prompt = factories.make_prompt(where)
        a, b = (factories.make_response(prompt, source) for source in pair)
        services.create_comparisons(where, [(a, b)])
        factories.make_judgment(prompt.comparisons.get())
    assert opponents_of(new) == [(project, old), (elsewhere, other)]
    assert opponents_of(other) == [(elsewhere, new)]
