"""A reward model's card: what it computes, where it is shown, and what it warns of."""

from __future__ import annotations

import json
import random
import re
from pathlib import Path
from typing import Any

import pytest
from django.test import Client

from annotation.models import Comparison, Prompt
from rlhf.evaluation.reward_report import ScoredPair, make_card, people_agreement, reliability_bins
from rlhf.jobspec import REWARD_CARD_FILE, Result
from rlhf.model_card import model_card
from rlhf.models import Checkpoint, RewardCard
from rlhf.services import create_snapshot, jobs, leases, queue_training_job
from rlhf.services.checkpoints import register_base_checkpoint
from rlhf.services.reward_cards import store_held_out_card
from rlhf.snapshots import snapshot_rows
from tests.factories import make_annotator, make_judged_project, make_judgment, make_user


def pair(margin: float, longer: int = 0, **more: Any) -> ScoredPair:
    return ScoredPair((margin, 0.0), (100 + longer, 100), **more)


def codes(card: dict[str, Any]) -> set[str]:
    return {gate["code"] for gate in card["gates"]}


def test_accuracy_stands_beside_what_people_agree_on() -> None:
    pairs = [
        pair(1.0, votes={"chosen": 3, "rejected": 0}, voters=(("ann", "chosen"), ("ben", "chosen"), ("cy", "chosen"))),
        pair(-1.0, votes={"chosen": 2, "rejected": 1}, voters=(("ann", "chosen"), ("ben", "rejected"))),
        pair(2.0, votes={"chosen": 1, "rejected": 0, "tie": 4}),
    ]
    card = make_card(pairs, held_out=["ben"])
    assert card["accuracy"]["value"] == pytest.approx(2 / 3)
    # Pairs of votes for a side: 3 of which 3 are equal, and 3 of which 1 is.
    assert (card["people"]["value"], card["people"]["meetings"], card["people"]["items"]) == (4 / 6, 6, 2)
    # Single votes that it sides with: 3 of 3, 1 of 3, 1 of 1.
    assert (card["with_people"]["value"], card["with_people"]["votes"]) == (5 / 7, 7)
    voters = {row["name"]: (row["value"], row["count"], row["held_out"]) for row in card["by_voter"]}
    assert voters == {"ann": (0.5, 2, False), "ben": (1.0, 2, True), "cy": (1.0, 1, False)}
    assert people_agreement([pair(1.0)]) is None
    assert make_card([]) == {"pairs": 0}


def test_slices_by_strength_and_category() -> None:
    card = make_card(
        [
            pair(1.0, strength=3.0, category="math"),
            pair(-1.0, strength=0.5, category="math"),
            pair(1.0, strength=2.4, category="chat"),
            pair(0.0, strength=None, category="chat"),
        ]
    )
    assert [(row["name"], row["value"]) for row in card["by_strength"]] == [("", 0.0), ("1", 0.0), ("3", 1.0)]
    assert [(row["name"], row["value"], row["count"]) for row in card["by_category"]] == [
        ("chat", 0.5, 2),
        ("math", 0.5, 2),
    ]
    assert make_card([pair(1.0)])["by_category"] == []


def test_bins_hold_equally_many_pairs_and_follow_a_calibrated_model() -> None:
    rng = random.Random(1)
    probabilities = [rng.uniform(0.5, 1.0) for _ in range(4000)]
    bins = reliability_bins([p if rng.random() < p else 1 - p for p in probabilities])
    assert [cell["pairs"] for cell in bins] == [400] * 10
    assert all(cell["lower"] - 0.02 <= cell["confidence"] <= cell["upper"] + 0.02 for cell in bins)
    assert sum(cell["pairs"] for cell in reliability_bins(probabilities[:25])) == 25


def test_gates_name_what_is_wrong() -> None:
    likes_length = make_card([pair(1.0, longer=10) for _ in range(80)] + [pair(-1.0, longer=-10) for _ in range(120)])
    assert {"no_signal", "likes_length"} <= codes(likes_length)
    assert likes_length["length"]["accuracy_chosen_longer"]["value"] == 1.0
    assert likes_length["length"]["accuracy_chosen_shorter"]["value"] == 0.0
    assert likes_length["length"]["correlation"] > 0
    leaked = make_card([pair(5.0, votes={"chosen": 2, "rejected": 1}) for _ in range(300)])
    assert codes(leaked) == {"too_good", "above_people", "well_calibrated"}
    probes = {
        "consistency": {"pairs": 8, "alone": 0.4, "swapped": 0.0},
        "padding": {"responses": 20, "raised_share": 0.9, "mean_shift": 0.3},
    }
    assert {"inconsistent", "likes_padding", "few_pairs"} <= codes(make_card([pair(0.1)], probes))


@pytest.fixture
def scored(tiny_model: Path, data_dir: Path) -> Checkpoint:
    """A reward job whose process has just ended, with scores of its held-out pairs."""
    base = register_base_checkpoint("tiny", tiny_model)
    project = make_judged_project(40)
    Prompt.objects.filter(project=project).update(task="weather")
    snapshot = create_snapshot(project, "polite", eval_share=0.3)
    rows = list(snapshot_rows(snapshot, "eval"))
    late = make_annotator(make_user("late"))
    for row in rows:
        make_judgment(Comparison.objects.get(pk=row["id"]), "b", 1, annotator=late)
    job = queue_training_job(snapshot=snapshot, method="reward", base=base, options={}, name="judge")
    claimed = leases.claim_job(type(job), job.pk, "node:1:a")
    assert claimed is not None
    job.directory.mkdir(parents=True)
    (job.directory / "model").symlink_to(tiny_model)
    pairs = [
        {
            "id": row["id"],
            "scores": [1.0, 0.0],
            "lengths": [60, 50],
            "strength": 2.0,
            "votes": {"chosen": 1, "rejected": 0},
        }
        for row in rows
    ]
    probes = {
        "consistency": {"pairs": 8, "alone": 0.001, "swapped": 0.002},
        "padding": {"responses": 0, "raised_share": 0.0, "mean_shift": 0.0},
    }
    (job.directory / REWARD_CARD_FILE).write_text(json.dumps({"pairs": pairs, "probes": probes}))
    jobs.finish_training_job(claimed, Result(status="succeeded", metrics={"steps": 3.0}))
    return Checkpoint.objects.get(job=job)


@pytest.mark.django_db
def test_a_job_that_ends_stores_its_card_and_the_page_shows_it(client: Client, scored: Checkpoint) -> None:
    card = RewardCard.objects.get()
    rows = {row["name"]: row for row in card.values["by_voter"]}
    assert (rows["late"]["value"], rows["late"]["held_out"]) == (0.0, True)
    assert {row["held_out"] for name, row in rows.items() if name != "late"} == {False}
    assert [row["name"] for row in card.values["by_category"]] == ["weather"]
    assert store_held_out_card(scored) == card  # measured again, it is the same card
    client.force_login(make_user(is_staff=True))
    text = client.get(f"/checkpoints/{scored.pk}/reward-card/").content.decode()
    plain = re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", text))
    assert "100.0 %" in plain
    assert "late (not in the training data) 0.0 %" in plain
    assert "Accuracy above 0.8 on human data is suspect" in plain
    assert "<circle" in text
    assert "| Accuracy | 100.0 % (95 %: " in model_card(scored)
    detail = client.get(f"/checkpoints/{scored.pk}/").content.decode()
    assert f'href="/checkpoints/{scored.pk}/reward-card/?card={card.pk}"' in detail
    assert client.get(f"/checkpoints/{scored.parent_id}/reward-card/").status_code == 404
