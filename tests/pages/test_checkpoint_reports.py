"""A checkpoint's report, and several checkpoints beside each other."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from django.test import Client

from annotation import services
from annotation.models import Study, StudyKind
from annotation.services import Marks, create_comparisons
from rlhf.evaluation.fb_bench import parse_dataset
from rlhf.models import BenchmarkRun, Checkpoint, CheckpointKind
from rlhf.services import move_alias, publish_checkpoint
from rlhf.services.benchmarks import import_benchmark_run, import_benchmark_set
from rlhf.services.checkpoints import register_checkpoint
from rlhf.services.reward_cards import store_card
from tests.factories import make_annotator, make_judgment, make_project, make_prompt, make_response
from tests.fb_bench_items import correction, maintenance, tick
from tests.pages.training import finish, log_steps, make_job
from tests.test_reward_cards import pair

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("data_dir")]


@pytest.fixture
def trained(base: Checkpoint, tiny_model: Path) -> Checkpoint:
    """A child of the base with votes, two benchmark runs and a hostile answer."""
    job = log_steps(make_job(base), 3)
    child = finish(job, tiny_model, **{"eval_rewards/accuracies": 0.75, "eval_rows_used": 40, "eval_loss": 0.61})
    for checkpoint in (base, child):
        publish_checkpoint(checkpoint)
        checkpoint.refresh_from_db()
    items = [correction(f"sum {number}") for number in range(4)] + [maintenance("twice two")]
    data_set, _ = import_benchmark_set(parse_dataset(json.dumps(items).encode(), "b.json"), name="own bench")
    for checkpoint, right in ((base, (True, False)), (child, (True, True))):
        named = {"infer_model": checkpoint.name, "judge_model": "a-judge"}
        rows = [tick(item, right if number == 2 else (True, True), **named) for number, item in enumerate(items)]
        rows[2]["second_response"] = f"<script>alert(1)</script> from {checkpoint.name}"
        import_benchmark_run(data_set, json.dumps(rows).encode(), "judged.json")
    project = make_project("voted")
    for number in range(3):
        prompt = make_prompt(project, f"Say it {number} times.")
        a, b = make_response(prompt, child.source, "new text"), make_response(prompt, base.source, "old text")
        create_comparisons(project, [(a, b)])
        comparison = prompt.comparisons.get()
        for _ in range(number + 1):
            make_judgment(comparison, "a" if comparison.response_a_id == a.pk else "b", annotator=make_annotator())
    return child


def test_a_report_holds_what_was_measured_and_leads_to_its_rows(page: Client, trained: Checkpoint) -> None:
    assert trained.parent
    text = page.get(f"/checkpoints/{trained.pk}/report/").content.decode()
    run = BenchmarkRun.objects.latest("pk")
    assert f'<a href="/training/{trained.job_id}/">75.0 %</a>' in text
    assert "(59.8 to 85.8)" in text  # Wilson's interval of 30 in 40
    assert "own bench, judged by a-judge" in text
    assert f'<a href="/evaluation/runs/{run.pk}/">100.00</a>' in text
    items = f"/evaluation/runs/{run.pk}/items/"
    assert f'<a href="{items}?scenario=response_maintenance">100.00</a>' in text
    assert f'<a href="{items}?task=Mathematics">100.0</a>' in text
    of_parent = f"/evaluation/runs/{BenchmarkRun.objects.earliest('pk').pk}/items/"
    listed = page.get(of_parent, {"scenario": "error_correction"}).content.decode()
    assert "4 items" in listed and listed.count("<b>100.0 %</b>") == 3 and listed.count("<b>30.0 %</b>") == 1
    assert "&lt;script&gt;alert(1)&lt;/script&gt; from tiny" in listed and "<script>alert" not in listed
    assert "No item is like this." in page.get(of_parent, {"task": "Cooking"}).content.decode()
    assert f'href="{of_parent}?task=Mathematics"' in page.get(of_parent.removesuffix("items/")).content.decode()
    assert "Votes of people against tiny" in text
    rows = f"/checkpoints/{trained.pk}/votes/{trained.parent_id}.csv"
    assert f'<a href="{rows}">100.0 %</a>' in text
    assert b"".join(page.get(rows)).count(b"\n") == 7  # six votes under their names
    won = f"/checkpoints/{trained.pk}/votes/voted/{trained.parent.source_id}.csv"
    for verdict, votes in (("good", 6), ("same", 0), ("bad", 0)):
        assert f'<a href="{won}?verdict={verdict}">{votes}</a>' in text
        assert b"".join(page.get(won, {"verdict": verdict})).count(b"\n") == (votes + 1 if votes else 0)
    assert page.get(won, {"verdict": "best"}).status_code == 404
    assert 'id="plot-loss"' in text and 'id="plot-memory"' not in text
    assert "Only 3 rows were held out" in text
    assert f'href="/checkpoints/{trained.pk}/report/"' in page.get(f"/checkpoints/{trained.pk}/").content.decode()


def test_a_report_counts_votes_against_the_champion_too(
    page: Client, trained: Checkpoint, base: Checkpoint, tiny_model: Path
) -> None:
    champion = register_checkpoint(name="the-best", kind=CheckpointKind.POLICY, directory=tiny_model)
    publish_checkpoint(champion)
    champion.refresh_from_db()
    move_alias("champion", champion, why="so far")
    prompt = make_prompt(make_project("final"))
    create_comparisons(
        prompt.project, [(make_response(prompt, trained.source, "one"), make_response(prompt, champion.source, "two"))]
    )
    make_judgment(prompt.comparisons.get(), "tie", annotator=make_annotator())
    text = page.get(f"/checkpoints/{trained.pk}/report/").content.decode()
    assert "Votes of people against tiny" in text and "Votes of people against the-best" in text
    assert f'<a href="/checkpoints/{trained.pk}/votes/{champion.pk}.csv">50.0 %</a>' in text
    # The other way round the child's page has no such file; the comparison gives the base's.
    beside = page.get("/checkpoints/compare/", {"ids": f"{trained.pk},{base.pk}"}).content.decode()
    assert f'<a href="/checkpoints/{base.pk}/votes/{trained.pk}.csv">0.0 %</a>' in beside


@pytest.fixture
def evaluated(trained: Checkpoint, base: Checkpoint) -> tuple[Study, Study]:
    """Four pairs judged good, good, same and bad; of the child's four responses three pass and all satisfy."""
    project = make_project("asked")
    assert trained.source and base.source
    for number in range(4):
        prompt = make_prompt(project, f"Question {number}?")
        make_response(prompt, trained.source, "n" * (9 + number))
        make_response(prompt, base.source, "o" * (12 - number))
    pairs, marks = (
        services.create_study(
            project=project,
            name=kind.value,
            kind=kind,
            source=trained.source,
            against=against,
            prompts=project.prompts.all(),
        )
        for kind, against in ((StudyKind.GSB, base.source), (StudyKind.RUBRIC, None))
    )
    for item, verdict in zip(pairs.items.select_related("comparison__response_a"), "nnto", strict=True):
        assert item.comparison
        is_a = item.comparison.response_a.source_id == trained.source_id
        winner = {"n": "a" if is_a else "b", "o": "b" if is_a else "a", "t": "tie"}[verdict]
        make_judgment(item.comparison, winner, annotator=make_annotator())
    annotator = make_annotator(project=project)
    for is_met in (True, False, True, True):
        rating = services.claim_rating(annotator=annotator, project=project)
        assert rating
        given = Marks(intent=True, accuracy=is_met, language=True, safety=True, is_satisfied=True)
        services.submit_rating(rating_id=rating.public_id, annotator=annotator, marks=given)
    return pairs, marks


def test_a_report_has_the_human_evaluations_and_the_leaderboards(
    page: Client, trained: Checkpoint, base: Checkpoint, evaluated: tuple[Study, Study]
) -> None:
    pairs, marks = (f"/projects/asked/evaluations/{study.pk}/" for study in evaluated)
    text = page.get(f"/checkpoints/{trained.pk}/report/").content.decode()
    assert f"Human evaluation gsb: {trained.name} against tiny, blind" in text
    assert f'<a href="{pairs}">62.5 %</a>' in text
    for kind, votes in (("good", 2), ("same", 1), ("bad", 1)):
        assert f'<th scope="row">{kind}</th><td class="measurement"><a href="{pairs}">{votes}</a>' in text
    assert f'<a href="{marks}">75.0 %</a>' in text and f'<a href="{marks}">100.0 %</a>' in text
    assert "Satisfaction rate" in text
    board = "/projects/asked/leaderboard/?voters=people"
    assert f'<th scope="row">rank</th><td class="measurement"><a href="{board}">1</a>' in text
    assert "Leaderboard of asked, by votes of people" in text
    # The other side of the same votes, on the other's report and beside the first.
    assert f'<a href="{pairs}">37.5 %</a>' in page.get(f"/checkpoints/{base.pk}/report/").content.decode()
    beside = page.get("/checkpoints/compare/", {"ids": f"{base.pk},{trained.pk}"}).content.decode()
    assert f'<a href="{pairs}">37.5 %</a>' in beside and f'<a href="{pairs}">62.5 %</a>' in beside
    told = page.get(f"/api/v1/checkpoints/{trained.pk}/report/").json()["groups"]
    groups = {group["key"]: {row["key"]: row for row in group["rows"]} for group in told}
    won = groups[f"study:{evaluated[0].pk}"]["win_rate"]
    assert (won["value"], won["count"], won["url"]) == (62.5, 4, pairs) and won["lower"] < 62.5 < won["upper"]
    rating = groups[f"leaderboard:{evaluated[0].project_id}"]["rating"]
    assert rating["value"] > 1000 and rating["lower"] < rating["value"] < rating["upper"]


def test_a_reward_models_report_has_its_card(page: Client, base: Checkpoint, tiny_model: Path) -> None:
    scorer = finish(log_steps(make_job(base, "reward"), 1), tiny_model)
    pairs = [pair(1.0, category="maths")] * 3 + [pair(-1.0, category="code")]
    store_card(scorer, pairs, None, sha256="0" * 64)
    text = page.get(f"/checkpoints/{scorer.pk}/report/").content.decode()
    assert "Reward card: held-out pairs" in text
    assert f'<a href="/checkpoints/{scorer.pk}/reward-card/?card={scorer.reward_cards.get().pk}">75.0 %</a>' in text
    assert "maths" in text


def test_a_checkpoint_that_nobody_measured_says_so(page: Client, base: Checkpoint) -> None:
    text = page.get(f"/checkpoints/{base.pk}/report/").content.decode()
    assert "Nothing has been measured of it here yet." in text
    assert "ask where it came from" in text


def test_checkpoints_beside_each_other_with_examples(page: Client, trained: Checkpoint, base: Checkpoint) -> None:
    text = page.get("/checkpoints/compare/", {"ids": f"{base.pk},{trained.pk}"}).content.decode()
    assert "own bench, judged by a-judge" in text
    # Overall: base (0.3 + 3) / 4 and 1, halved between the scenarios.
    assert ">91.25</a>" in text and ">100.00</a>" in text
    assert "item 3, Mathematics" in text  # where they differ, and no other item
    assert "item 1, Mathematics" not in text
    BenchmarkRun.objects.filter(source=base.source).update(is_imported=False, prompt_language="en")
    apart = page.get("/checkpoints/compare/", {"ids": f"{base.pk},{trained.pk}"}).content.decode()
    assert "own bench, judged by a-judge (asked in English, answers of at most 4096 tokens)" in apart
    assert "own bench, judged by a-judge (imported judgments)" in apart
    assert "item 3, Mathematics" not in apart, "judged under other conditions"
    assert text.index(f"&lt;script&gt;alert(1)&lt;/script&gt; from {trained.name}") < text.index("from tiny")
    assert "<script>alert" not in text
    assert "3 votes" in text and text.index("Say it 2 times.") < text.index("Say it 0 times.")


def test_choosing_checkpoints(page: Client, trained: Checkpoint, base: Checkpoint) -> None:
    text = page.get("/checkpoints/compare/", {"ids": f"{base.pk},x,99999999999"}).content.decode()
    assert f'value="{base.pk}" checked' in text
    both = page.get(f"/checkpoints/compare/?ids={base.pk}&ids={trained.pk}").content.decode()
    assert f'aria-label="accuracy: {trained.name} 75.0 % (59.8 to 85.8)"' in both, "the plot says what it shows"
    assert 'x1="59.' in both and 'cx="75.00%"' in both
    overall = f'aria-label="overall: tiny 91.25, {trained.name} 100.00"'
    assert overall in both and 'cx="91.25%"' in both
    assert "Compare checkpoints" in both and "What they are" in both
