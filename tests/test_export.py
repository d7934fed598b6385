"""Consensus, the rows of judged comparisons, and exported files."""

from __future__ import annotations

import hashlib
import io
import json
import resource
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from django.core.management import CommandError, call_command
from django.db import connection
from django.utils import timezone
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from annotation.export import TRAINING_KINDS, Kind, count_verdicts, judged_rows, training_rows
from annotation.export.consensus import make_consensus
from annotation.export.files import write_table
from annotation.export.tables import make_table
from annotation.models import Annotator, Comparison, Judgment, Project, Response
from tests.exporting import run_export
from tests.factories import make_comparison, make_judgment, make_project, make_prompt, make_source

WINNERS = ("a", "b")


def expected_verdict(votes: Counter[str]) -> str:
    """The rule once more, written another way."""
    ranking = votes.most_common()
    if len(ranking) > 1 and ranking[0][1] == ranking[1][1]:
        return "no_majority"
    return ranking[0][0]


def vote(comparison: Comparison, *preferences: str) -> None:
    for preference in preferences:
        make_judgment(comparison, preference)


def verdict_of(comparison: Comparison) -> str:
    (row,) = [row for row in judged_rows(comparison.project) if row["id"] == comparison.pk]
    return row["verdict"]


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("votes", "verdict"),
    [
        (["a"], "a"),
        (["b"], "b"),
        (["tie"], "tie"),
        (["neither"], "neither"),
        (["a", "a", "b"], "a"),
        (["a", "b"], "no_majority"),
        (["a", "tie"], "no_majority"),
        (["a", "neither"], "no_majority"),
        (["a", "a", "tie", "b"], "a"),
        (["a", "a", "tie", "tie", "b"], "no_majority"),
        (["a", "tie", "tie"], "tie"),
        (["b", "neither", "neither"], "neither"),
    ],
)
def test_verdict_is_the_answer_with_most_votes(votes: list[str], verdict: str) -> None:
    comparison = make_comparison()
    vote(comparison, *votes)
    assert verdict_of(comparison) == verdict == expected_verdict(Counter(votes))


@pytest.mark.django_db
def test_reasons_that_lie_in_the_texts() -> None:
    project = make_project()
    same = make_comparison(project, a_text="One.", b_text="One.x")
    Response.objects.filter(pk=same.response_b_id).update(
        text="One.", text_sha256=Response.objects.get(pk=same.response_a_id).text_sha256
    )
    blank = make_comparison(project, a_text=" \n\t", b_text="Two.")
    blank_rejected = make_comparison(project, a_text=" \n\t", b_text="Three.")
    other_history = make_comparison(project)
    Response.objects.filter(pk=other_history.response_a_id).update(messages=[{"role": "user", "content": "?"}])
    vote(same, "a")
    vote(blank, "a")
    vote(blank_rejected, "b")
    vote(other_history, "a")
    assert verdict_of(same) == "identical_responses"
    assert verdict_of(blank) == "empty"
    assert verdict_of(blank_rejected) == "b"
    assert verdict_of(other_history) == "different_histories"


@pytest.mark.django_db
def test_histories_that_both_responses_share_replace_the_prompt() -> None:
    comparison = make_comparison()
    history = [{"role": "user", "content": "another history"}]
    Response.objects.filter(pk__in=[comparison.response_a_id, comparison.response_b_id]).update(messages=history)
    vote(comparison, "b")
    (row,) = judged_rows(comparison.project)
    assert (row["verdict"], row["prompt"]) == ("b", history)


@pytest.mark.django_db
def test_superseded_judgments_and_models_do_not_count() -> None:
    comparison = make_comparison()
    old = make_judgment(comparison, "a", -3)
    Judgment.objects.filter(pk=old.pk).update(superseded_at=timezone.now())
    make_judgment(comparison, "b", 1, annotator=old.annotator)
    for name in ("judge one", "judge two"):
        model = Annotator.objects.create(project=comparison.project, name=name, is_human=False)
        make_judgment(comparison, "a", -2, annotator=model)
    (people,) = judged_rows(comparison.project, humans_only=True)
    (everyone,) = judged_rows(comparison.project, humans_only=False)
    assert (people["verdict"], people["mean_strength"], people["votes"]["a"]) == ("b", 1.0, 0)
    assert (everyone["verdict"], everyone["mean_strength"], everyone["votes"]["a"]) == ("a", -1.0, 2)
    assert count_verdicts(comparison.project) == {"b": 1}


@pytest.mark.django_db
def test_other_projects_and_unjudged_comparisons_stay_out() -> None:
    comparison, other = make_comparison(), make_comparison()
    unjudged = make_comparison(comparison.project)
    vote(comparison, "a")
    vote(other, "a")
    rows = list(judged_rows(comparison.project))
    assert [row["id"] for row in rows] == [comparison.pk] != [unjudged.pk]


@pytest.mark.django_db
def test_chosen_response_is_given_once_for_sft() -> None:
    project = make_project()
    prompt = make_prompt(project)
    for _ in range(2):  # two comparisons that the same text wins
        vote(make_comparison(project, prompt=prompt, a_text="The best."), "a")
    rows = list(training_rows("sft", judged_rows(project)))
    assert [row["completion"] for row in rows] == [[{"role": "assistant", "content": "The best."}]]


ANSWERS = st.lists(st.sampled_from(["a", "b", "tie", "neither"]), min_size=1, max_size=6)
TEXTS = st.sampled_from(
    ["Short.", " ", "", 'With "quotes" and \\ back\\slashes\\n', "Zwei\nZeilen\r\n\t€ 😀 \x01\x02", "\u2028"]
)


STRENGTHS: dict[str, list[int | None]] = {
    "a": [-3, -2, -1, None],
    "b": [1, 2, 3, None],
    "tie": [0, None],
    "neither": [None],
}
GRADED = st.sampled_from([(preference, strength) for preference, any_of in STRENGTHS.items() for strength in any_of])
COMPARISONS = st.lists(
    st.tuples(TEXTS, TEXTS, st.lists(GRADED, min_size=1, max_size=5), st.randoms()), min_size=1, max_size=6
)
MIRROR = {"a": "b", "b": "a"}


@pytest.mark.django_db
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(COMPARISONS)
def test_order_of_votes_does_not_matter_and_swapping_sides_mirrors(
    comparisons: list[tuple[str, str, list[tuple[str, int | None]], Any]],
) -> None:
    straight, swapped = make_project(), make_project()
    people = [
        Annotator.objects.get_or_create(project=straight, name=f"person {number}", defaults={"is_human": True})[0]
        for number in range(5)
    ]
    for a_text, b_text, votes, rng in comparisons:
        first = compare(straight, a_text, b_text)
        second = compare(swapped, b_text, a_text)
        mirrored = [(MIRROR.get(p, p), None if s is None else -s) for p, s in votes]
        rng.shuffle(mirrored)
        for comparison, cast in ((first, votes), (second, mirrored)):
            Judgment.objects.bulk_create(
                Judgment(comparison=comparison, annotator=person, preference=p, strength=s)
                for person, (p, s) in zip(people, cast, strict=False)
            )
    rows, mirror = list(judged_rows(straight)), list(judged_rows(swapped))
    assert [row["verdict"] for row in mirror] == [MIRROR.get(row["verdict"], row["verdict"]) for row in rows]
    for row, (_, _, votes, _) in zip(rows, comparisons, strict=True):
        counted = Counter(preference for preference, _ in votes)
        assert {side: count for side, count in row["votes"].items() if count} == counted
        if row["verdict"] in (*WINNERS, "identical_responses", "empty"):
            assert expected_verdict(counted) in WINNERS
        else:
            assert row["verdict"] == expected_verdict(counted)
    for kind in ("dpo", "reward"):
        for row, again in zip(training_rows(kind, rows), training_rows(kind, mirror), strict=True):
            assert without_ids(row) == without_ids(again)
            assert row["chosen"] != row["rejected"]
            assert row["votes"]["chosen"] > max(row["votes"][key] for key in ("rejected", "tie", "neither"))
            assert row["chosen"][0]["content"].strip(" \t\n\r\f\v")
    for kind in TRAINING_KINDS:  # what Postgres builds and what Python builds is the same
        assert copied(straight, kind) == list(training_rows(kind, rows))


def without_ids(row: dict[str, Any]) -> dict[str, Any]:
    return {**row, "id": 0, "group_id": 0, "group": "", "prompt": []}


def compare(project: Project, a_text: str, b_text: str) -> Comparison:
    """A comparison of exactly these texts, equal or blank ones too."""
    prompt = make_prompt(project)
    a, b = [
        Response.objects.create(
            prompt=prompt,
            source=make_source("one author"),
            sample_index=index,
            text=text,
            text_sha256=hashlib.sha256(text.encode()).hexdigest(),
        )
        for index, text in enumerate((a_text, b_text))
    ]
    return Comparison.objects.create(project=project, prompt=prompt, response_a=a, response_b=b)


def copied(project: Project, kind: Kind) -> list[dict[str, Any]]:
    """What Postgres builds, inside the test's transaction."""
    make_consensus(project, humans_only=True)
    file = io.BytesIO()
    write_table(make_table(kind, project, humans_only=True), file, is_parquet=False)
    return [json.loads(line) for line in file.getvalue().split(b"\n")[:-1]]


# ── Files ────────────────────────────────────────────────────────────────────────────────────────────────────────


def judged_project() -> Project:
    """Every verdict once or more, graded and ungraded, with text that is hard to write down."""
    project = make_project()
    odd = 'Quotes " and \\ and \\n, a line\nbreak, a tab\t, \x01\x02, \u2028, é, 😀.'
    for number, (preference, strength) in enumerate([("a", None), ("b", 2), ("tie", 0), ("neither", None), ("a", -1)]):
        make_judgment(
            make_comparison(project, a_text=f"{odd} {number}", b_text=f"Plain {number}."), preference, strength
        )
    vote(make_comparison(project), "a", "b")
    return project


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(
    ("kind", "rows", "prompts", "dropped"),
    [
        ("dpo", 3, 3, {"neither": 1, "no_majority": 1, "tie": 1}),
        ("reward", 3, 3, {"neither": 1, "no_majority": 1, "tie": 1}),
        ("kto", 8, 4, {"no_majority": 1, "tie": 1}),
        ("sft", 3, 3, {"neither": 1, "no_majority": 1, "tie": 1}),
    ],
)
def test_both_formats_hold_the_training_rows(
    tmp_path: Path, kind: str, rows: int, prompts: int, dropped: dict[str, int]
) -> None:
    project = judged_project()
    expected = list(training_rows(kind, judged_rows(project)))
    for suffix in (".jsonl", ".parquet"):
        out = tmp_path / f"rows{suffix}"
        done = run_export(project, kind, out)
        assert done == {
            "rows": rows,
            "prompts": prompts,
            "sha256": hashlib.sha256(out.read_bytes()).hexdigest(),
            "dropped": dropped,
        }
        written = (
            [json.loads(line) for line in out.read_bytes().split(b"\n")[:-1]]
            if suffix == ".jsonl"
            else pq.read_table(out).to_pylist()
        )
        assert written == expected
        assert list(written[0]) == list(expected[0])
    assert run_export(project, kind, out)["sha256"] == done["sha256"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["rows.jsonl", "rows.parquet"]


@pytest.mark.django_db(transaction=True)
def test_models_judgments_are_left_out_if_asked(tmp_path: Path) -> None:
    project = make_project()
    judge = Annotator.objects.create(project=project, name="judge", is_human=False)
    make_judgment(make_comparison(project), "a", annotator=judge)
    assert run_export(project, "dpo", tmp_path / "all.jsonl")["rows"] == 1
    people = run_export(project, "dpo", tmp_path / "people.jsonl", humans_only=True)
    assert (people["rows"], people["prompts"], people["dropped"]) == (0, 0, {})
    assert run_export(project, "dpo", tmp_path / "people.parquet", humans_only=True)["rows"] == 0


@pytest.mark.django_db(transaction=True)
def test_parquet_is_written_in_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from annotation.export import parquet

    monkeypatch.setattr(parquet, "BATCH_BYTES", 300)
    project = judged_project()
    out = tmp_path / "rows.parquet"
    run_export(project, "dpo", out)
    assert pq.ParquetFile(out).num_row_groups > 1
    assert pq.read_table(out).to_pylist() == list(training_rows("dpo", judged_rows(project)))


@pytest.mark.django_db(transaction=True)
def test_strength_reads_as_a_decimal_from_the_first_row_on(tmp_path: Path) -> None:
    project = make_project()
    for strength in (None, -2):
        make_judgment(make_comparison(project), "a", strength)
    run_export(project, "dpo", tmp_path / "rows.jsonl")
    written = (tmp_path / "rows.jsonl").read_text()
    assert '"strength":0.000000' in written
    assert '"strength":2.000000' in written


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_full_disk_leaves_the_old_file_and_says_so(tmp_path: Path, suffix: str) -> None:
    project = make_project()
    for number in range(40):
        text = "".join(hashlib.sha256(f"{number} {part}".encode()).hexdigest() for part in range(200))
        make_judgment(make_comparison(project, a_text=text), "a")
    out = tmp_path / f"rows{suffix}"
    out.write_text("the old file")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))  # as a full disk: a write fails half way
    try:
        with pytest.raises(CommandError, match=r"cannot be written: .*Nothing was left there"):
            run_export(project, "dpo", out)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert out.read_text() == "the old file"
    assert [path.name for path in tmp_path.iterdir()] == [out.name]
    assert run_export(project, "dpo", out)["rows"] == 40


@pytest.mark.django_db
def test_wrong_names_are_refused(tmp_path: Path) -> None:
    project = make_project()
    with pytest.raises(CommandError, match=r"must end in \.jsonl or \.parquet"):
        run_export(project, "dpo", tmp_path / "rows.csv")
    with pytest.raises(CommandError, match="nowhere"):
        call_command("export_preferences", project="nowhere", kind="dpo", out=tmp_path / "rows.jsonl")


@pytest.mark.django_db(transaction=True)
def test_missing_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match="No such file or directory"):
        run_export(make_project(), "dpo", tmp_path / "none" / "rows.jsonl")


@pytest.mark.django_db(transaction=True)
def test_counts_are_of_the_moment_at_which_the_rows_were_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from annotation.export import files

    project = judged_project()

    def judge_meanwhile() -> None:
        try:
            make_judgment(make_comparison(project), "a")
            make_judgment(make_comparison(project), "tie")
        finally:
            connection.close()

    def write_and_be_overtaken(lines: Any, file: Any) -> int:
        count = sum(file.write(line) > 0 for line in lines)
        other = threading.Thread(target=judge_meanwhile)
        other.start()
        other.join()
        return count

    monkeypatch.setattr(files, "_write_lines", write_and_be_overtaken)
    done = run_export(project, "dpo", tmp_path / "rows.jsonl")
    assert (done["rows"], done["prompts"], done["dropped"]["tie"]) == (3, 3, 1)
    monkeypatch.undo()
    assert run_export(project, "dpo", tmp_path / "rows.jsonl")["rows"] == 4


_TRAIN = """
import sys
from datasets import load_dataset
from trl import DPOConfig, DPOTrainer, KTOConfig, KTOTrainer, RewardConfig, RewardTrainer, SFTConfig, SFTTrainer

folder, model = sys.argv[1:]
trainers = {"dpo": (DPOTrainer, DPOConfig), "reward": (RewardTrainer, RewardConfig), "kto": (KTOTrainer, KTOConfig),
            "sft": (SFTTrainer, SFTConfig)}
for kind, (trainer_class, config_class) in trainers.items():
    files = {"json": f"{folder}/{kind}.jsonl", "parquet": f"{folder}/{kind}.parquet"}
    rows, parquet = (load_dataset(builder, data_files=path, split="train", cache_dir=f"{folder}/cache")
                     for builder, path in files.items())
    assert rows.to_list() == parquet.to_list()
    options = dict(output_dir=f"{folder}/out", max_steps=1, per_device_train_batch_size=2, report_to="none",
                   save_strategy="no", use_cpu=True, bf16=False)
    done = trainer_class(model=model, args=config_class(**options), train_dataset=rows).train()
    print(kind, len(rows), done.global_step)
"""


@pytest.mark.training
@pytest.mark.django_db(transaction=True)
@pytest.mark.slow
def test_trl_trains_on_the_files_as_they_are(tmp_path: Path, tiny_model: Path) -> None:
    project = judged_project()
    for kind in TRAINING_KINDS:
        for suffix in (".jsonl", ".parquet"):
            run_export(project, kind, tmp_path / f"{kind}{suffix}")
    trained = subprocess.run(
        [sys.executable, "-c", _TRAIN, tmp_path, tiny_model], capture_output=True, text=True, check=False
    )
    assert trained.returncode == 0, trained.stderr[-3000:]
    shown = [line for line in trained.stdout.splitlines() if line.split()[0] in Kind.values]
    assert shown == ["dpo 3 1", "reward 3 1", "kto 8 1", "sft 3 1"]
