"""A reward model says what it cannot tell apart, and people get that first."""

from __future__ import annotations

import json
import subprocess
import sys
from io import StringIO
from math import exp
from pathlib import Path
from typing import Any

import pytest
from django.core.management import call_command
from django.test import Client

from annotation.models import Comparison, Event, EventKind, QueueTier
from annotation.services import DomainError
from rlhf.models import Checkpoint, CheckpointKind
from rlhf.scorer import score_rows
from rlhf.services.checkpoints import register_checkpoint
from rlhf.services.uncertainty import rate_uncertainties, run_request
from tests.factories import make_comparison, make_judgment, make_project, make_prompt, make_user

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("data_dir")]

_BUILD = """
import sys
from pathlib import Path
from transformers import AutoModelForSequenceClassification, AutoTokenizer
from rlhf.jobspec import write_manifest
base, out = sys.argv[1:]
AutoModelForSequenceClassification.from_pretrained(base, num_labels=1).save_pretrained(out)
AutoTokenizer.from_pretrained(base).save_pretrained(out)
write_manifest(Path(out))
"""


@pytest.fixture
def taste(tiny_model: Path, tmp_path: Path) -> Checkpoint:
    """A reward model that scores, by chance."""
    out = tmp_path / "models" / "taste"
    subprocess.run(
        [sys.executable, "-c", _BUILD, str(tiny_model), str(out)], check=True, cwd=Path(__file__).parents[1]
    )
    return register_checkpoint(name="taste", kind=CheckpointKind.REWARD, directory=out)


@pytest.mark.slow
def test_open_pairs_are_scored_and_what_cannot_be_told_apart_comes_first(taste: Checkpoint) -> None:
    project = make_project("helpful")
    prompt = make_prompt(project, "Who is it?")
    near = make_comparison(project, prompt=prompt, a_text="It is me. " * 9, b_text="It is me. " * 9 + "x")
    far = make_comparison(project, prompt=prompt, a_text="No.", b_text="A long and friendly answer, as you like it.")
    make_comparison(project, a_text="word " * 600, b_text="too long for the model")
    judged = make_comparison(project)
    make_judgment(judged)
    Comparison.objects.filter(pk=judged.pk).update(assigned_count=1)

    out = StringIO()
    call_command("rate_uncertainty", "--reward-model", "taste", "--project", "helpful", "--json", stdout=out)
    found = json.loads(out.getvalue())
    assert (found["scored"], found["left_out"]) == (2, 1)
    values = dict(Comparison.objects.filter(uncertainty__isnull=False).values_list("pk", "uncertainty"))
    assert set(values) == {near.pk, far.pk}
    rows: list[dict[str, Any]] = [
        {"prompt": prompt.messages, "responses": [pair.response_a.text, pair.response_b.text]} for pair in (near, far)
    ]
    for pair, row in zip((near, far), score_rows(taste.path, rows)[0], strict=True):
        a, b = row["scores"]
        p = 1 / (1 + exp(b - a))
        assert values[pair.pk] == pytest.approx(1 - 2 * abs(p - 0.5), abs=0.02)
    first = Comparison.objects.filter(tier=QueueTier.UNCERTAIN)
    assert first.count() == found["first"] == sum(value is not None and value >= 0.8 for value in values.values())
    event = Event.objects.get(kind=EventKind.EDIT, project=project)
    assert event.data == {"action": "uncertainties", "comparisons": 2, "reward_model": "taste"}


def test_what_stands_in_the_way_is_said(tiny_model: Path) -> None:
    policy = register_checkpoint(name="tiny", kind=CheckpointKind.POLICY, directory=tiny_model)
    broken = register_checkpoint(name="broken", kind=CheckpointKind.REWARD, directory=tiny_model)
    project, boss = make_project("helpful"), make_user("boss", is_staff=True)
    with pytest.raises(DomainError, match="has no open pair"):
        rate_uncertainties(project, broken)
    make_comparison(project)
    with pytest.raises(DomainError, match="choose a reward model"):
        rate_uncertainties(project, policy)

    page = Client()
    page.force_login(boss)
    card = f"/checkpoints/{broken.pk}/reward-card/"
    assert "Score what is open" in page.get(card).content.decode()
    answer = page.post(f"/checkpoints/{broken.pk}/uncertainty/", {"project": "helpful"}, follow=True)
    assert answer.redirect_chain[0][0] == card
    assert "message broker is away" in answer.content.decode()  # no broker runs in this test
    assert page.post(f"/checkpoints/{broken.pk}/uncertainty/", {"project": "none"}).status_code == 404
    stranger = Client()
    stranger.force_login(make_user())
    assert stranger.post(f"/checkpoints/{broken.pk}/uncertainty/", {"project": "helpful"}).status_code == 403

    run_request(project.pk, broken.pk, boss.pk)  # it writes, whatever its row says
    event = Event.objects.get(kind=EventKind.EDIT, project=project)
    assert "scores need a reward model" in event.data["error"]
    assert not Comparison.objects.filter(uncertainty__isnull=False).exists()
