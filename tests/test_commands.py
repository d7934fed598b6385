"""The training side's commands, as scripts use them (docs/commands.md)."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command

from annotation.models import ResponseSource
from rlhf.models import RewardCard, TrainingJob
from rlhf.services import create_snapshot, register_base_checkpoint
from tests.factories import make_judged_project

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("data_dir")]


def run(*arguments: Any) -> dict[str, Any]:
    """The one JSON object that a command prints on stdout."""
    out = io.StringIO()
    call_command(*map(str, arguments), "--json", stdout=out, stderr=io.StringIO())
    return json.loads(out.getvalue())


def test_a_launch_that_a_check_blocks_is_prepared_only_against_it(tiny_model: Path, tmp_path: Path) -> None:
    register_base_checkpoint("tiny", tiny_model)
    create_snapshot(make_judged_project(2), "votes", eval_share=0)
    asked = {"method": "dpo", "snapshot": "votes", "base": "tiny", "prepare": tmp_path / "prepared"}
    with pytest.raises(CommandError, match=r"Learning rate 0\.01 is higher"):
        call_command("train", **asked, settings_given=["learning_rate=0.01"])
    assert not (tmp_path / "prepared").exists()
    with pytest.raises(CommandError, match="longer than 16 tokens"):
        call_command("train", **asked, settings_given=["max_tokens=16"], proceed=True)
    call_command("train", **asked, settings_given=["learning_rate=0.01"], proceed=True)
    assert (tmp_path / "prepared" / "spec.json").exists() and not TrainingJob.objects.exists()


@pytest.mark.slow
@pytest.mark.training
def test_from_votes_to_a_scored_reward_model_by_commands_alone(tiny_model: Path, tmp_path: Path) -> None:
    project = make_judged_project(12)
    frozen = run("snapshot", "--project", project.slug, "--name", "votes", "--eval-share", 0.25)
    assert frozen == {
        "name": "votes",
        "sha256": frozen["sha256"],
        "train_rows": 9,
        "eval_rows": 3,
        "prompts": 12,
    }
    options = ["max_steps=12", "learning_rate=1e-3", "batch_size=4", "micro_batch_size=4"]
    trained = run(
        *("train", "--method", "reward", "--snapshot", "votes", "--base", tiny_model, "--name", "judge"),
        *("--set", *options, "--wait"),
    )
    assert (trained["status"], trained["checkpoint"]) == ("succeeded", "judge")
    assert trained["metrics"]["eval_pairs"] == 3

    rows = tmp_path / "rows.jsonl"
    verdict = [{"annotator": "p", "human": True, "preferred_index": 1, "tie": False}]
    tie = [{"annotator": "p", "human": True, "preferred_index": None, "tie": True}]
    pair = [{"model": "x", "text": "No idea, go away."}, {"model": "y", "text": "Thank you, I am glad to help."}]
    rows.write_text(
        "".join(
            json.dumps({"id": str(number), "prompt": "How are you?", "responses": pair, "annotations": annotations})
            + "\n"
            for number, annotations in enumerate([verdict, tie])
        )
        + "not JSON\n"
    )
    scored = run("score", "--checkpoint", "judge", "--file", rows)
    assert (scored["pairs"], scored["accuracy"]) == (1, 1.0)
    assert scored["lower"] < 1.0 <= scored["upper"]
    assert [skipped["line"] for skipped in scored["skipped"]] == [2, 3]
    assert scored["card"]["probes"]["consistency"]["pairs"] == 1
    assert scored["card"]["probes"]["consistency"]["alone"] < 0.05
    assert scored["card"]["probes"]["padding"]["responses"] == 2
    card = RewardCard.objects.get(checkpoint__name="judge", data_name="")
    assert card.values["probes"]["consistency"]["pairs"] >= 1
    with pytest.raises(CommandError, match="cannot write any"):
        run("publish", "judge")


def test_publishing_a_directory_by_command(tiny_model: Path) -> None:
    assert run("publish", tiny_model) == {"source": "tiny-model"}
    assert ResponseSource.objects.get().kind == "model"


@pytest.mark.parametrize(
    "arguments,sentence",
    [
        (["snapshot", "--project", "nowhere", "--name", "x"], "no project 'nowhere'"),
        (["train", "--method", "dpo", "--snapshot", "nothing"], "no data set 'nothing'"),
        (["publish", "nobody"], "no checkpoint, alias or directory nobody"),
        (["score", "--checkpoint", "nobody", "--file", "x"], "no checkpoint, alias or directory nobody"),
        (["generate", "--source", "nobody", "--project", "nowhere"], "no project 'nowhere'"),
    ],
)
def test_what_is_not_there_is_refused_with_a_sentence(arguments: list[str], sentence: str) -> None:
    with pytest.raises(CommandError, match=sentence):
        run(*arguments)


def test_a_directory_that_is_no_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match="not a model directory"):
        run("publish", tmp_path)
