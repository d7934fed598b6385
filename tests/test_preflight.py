"""What is looked at in the rows, their lengths and the chat template before a job starts, check by check."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from django.core.files.storage import storages

from annotation.models import Response
from rlhf.job_directory import rows_of
from rlhf.jobspec import write_manifest
from rlhf.models import Checkpoint
from rlhf.options import build_options
from rlhf.preflight import Finding, Level, Outcome, run_checks, sentence, settle
from rlhf.preflight.content import Content
from rlhf.preflight.findings import passed, warned
from rlhf.preflight.lengths import BINS, samples
from rlhf.preflight.rows import check_rows, empty_report
from rlhf.preflight.sentences import WORDS
from rlhf.services import create_snapshot, publish_checkpoint, register_base_checkpoint
from rlhf.snapshots import snapshot_path
from rlhf.token_lengths import TokenCounter
from rlhf.training.probe import largest_difference
from tests.factories import make_comparison, make_judged_project, make_judgment, make_project, make_prompt
from tests.findings import said
from tests.tiny_model import CHAT_TEMPLATE


def pair(number: int, prompt: str, chosen: str, rejected: str) -> dict[str, Any]:
    texts = {"chosen": chosen, "rejected": rejected}
    sides = {side: [{"role": "assistant", "content": text}] for side, text in texts.items()}
    return {"id": number, "prompt": [{"role": "user", "content": prompt}], **sides}


def content_of(*rows: dict[str, Any], held_out: Iterable[dict[str, Any]] = (), method: str = "dpo") -> list[Finding]:
    content = Content()
    for split, of_split in (("train", rows), ("eval", held_out)):
        for row in of_split:
            content.add(split, row)
    return list(content.check(method))


def test_rows_that_contradict_or_repeat_are_named() -> None:
    rows = [pair(number, f"Question {number}", "yes", "no") for number in range(20)]
    assert said(content_of(*rows)) == {"no_contradiction": "passed"}
    wrong = [pair(20, "Question 3", "no", "yes"), pair(21, "Question 4", "yes", "no")]
    findings = content_of(*rows, *wrong)
    assert said(findings) == {"contradicting": "warned", "repeated": "warned"}
    assert {finding.code: finding.values["examples"] for finding in findings} == {
        "contradicting": [20],
        "repeated": [21],
    }
    many = [pair(30 + number, f"Question {number}", "no", "yes") for number in range(10)]
    assert said(content_of(*rows, *many))["contradicting"] == "blocked"


def test_held_out_prompts_that_are_trained_on_word_for_word_or_nearly_are_found() -> None:
    long = "How do I keep a basil plant alive on a kitchen windowsill that gets sun only in the morning"
    train = [pair(1, long + "?", "a", "b"), pair(2, "Something else entirely", "a", "b")]
    clean = [pair(3, "What is a good name for a quiet dog?", "a", "b")]
    assert said(content_of(*train, held_out=clean))["no_leak"] == "passed"
    near = content_of(*train, held_out=[*clean, pair(4, long + ", please?", "a", "b")])
    assert said(near)["alike"] == "warned"
    assert near[-1].values["examples"] == [4]
    exact = [pair(number, f"Question {number}", "a", "b") for number in range(8)]
    assert said(content_of(*exact, held_out=exact))["leaked"] == "blocked"
    assert said(content_of(*exact, held_out=exact[:1]))["leaked"] == "warned"  # one row is no reason to refuse


def test_kto_needs_both_kinds() -> None:
    row = {
        "id": 1,
        "prompt": [{"role": "user", "content": "?"}],
        "completion": [{"role": "assistant", "content": "!"}],
    }
    good, bad = row | {"label": True}, row | {"label": False}
    assert said(content_of(good, method="kto"))["all_desirable"] == "refused"
    assert said(content_of(bad, method="kto"))["all_undesirable"] == "refused"
    assert said(content_of(good, bad, method="kto")) == {"contradicting": "warned"}


def counts(**changes: int) -> dict[str, Any]:
    return empty_report(512) | {"judged": 200, "used": 200, "longest_tokens": 300} | changes


@pytest.mark.parametrize(
    ("train", "held_out", "expected"),
    [
        ({}, {}, {"rows_used": "passed", "none_cut": "passed", "held_out": "passed"}),
        ({}, {"used": 0}, {"rows_used": "passed", "none_cut": "passed", "no_held_out": "warned"}),
        ({"used": 0, "too_long": 200}, {}, {"all_too_long": "refused", "too_long": "blocked", "held_out": "passed"}),
        ({"used": 0}, {}, {"no_rows": "refused", "held_out": "passed"}),
        (
            {"too_long": 8, "too_long_chosen": 4, "too_long_rejected": 4},
            {},
            {"rows_used": "passed", "too_long_by_side": "warned", "held_out": "passed"},
        ),
        (
            {"too_long": 8, "too_long_chosen": 7, "too_long_rejected": 1},
            {},
            {
                "rows_used": "passed",
                "too_long_by_side": "warned",
                "uneven_loss": "blocked",
                "held_out": "passed",
            },
        ),
        (
            {"used": 180, "too_long": 20},
            {"used": 180, "too_long": 20},
            {
                "rows_used": "passed",
                "too_long": "blocked",
                "too_long_held_out": "blocked",
                "held_out": "passed",
            },
        ),
        (
            {"cut": 8, "cut_chosen": 4, "cut_rejected": 4},
            {},
            {"rows_used": "passed", "cut_by_side": "warned", "held_out": "passed"},
        ),
        (
            {"cut": 20, "cut_chosen": 19, "cut_rejected": 1},
            {},
            {"rows_used": "passed", "cut_by_side": "blocked", "uneven_cut": "blocked", "held_out": "passed"},
        ),
        ({"cut": 3}, {}, {"rows_used": "passed", "cut": "warned", "held_out": "passed"}),
        (
            {"refused": 30},
            {},
            {
                "rows_used": "passed",
                "none_cut": "passed",
                "template_refuses": "blocked",
                "held_out": "passed",
            },
        ),
    ],
)
def test_rows_that_are_lost_warn_and_many_or_uneven_ones_block(
    train: dict[str, int], held_out: dict[str, int], expected: dict[str, str]
) -> None:
    assert said(check_rows({"train": counts(**train), "eval": counts(**held_out)})) == expected


def test_a_suspicion_is_cleared_by_a_measurement_and_findings_survive_storage() -> None:
    suspected = warned("padding_is_end", token="<|im_end|>")
    assert [finding.level for finding in settle([suspected])] == [Level.WARNED]
    assert {finding.level for finding in settle([suspected, passed("padding_equal", difference="1e-6")])} == {
        Level.PASSED
    }
    assert Finding.from_json(suspected.as_json()) == suspected
    assert sentence(Finding(Level.WARNED, "a code of another version")) == "a code of another version"


def test_scores_that_depend_on_the_batch_are_seen() -> None:
    def steady(batch: list[list[int]]) -> list[float]:
        return [float(sum(ids)) for ids in batch]

    def reads_its_neighbours(batch: list[list[int]]) -> list[float]:
        return [sum(ids) + 0.01 * len(batch) for ids in batch]

    def reads_its_place(batch: list[list[int]]) -> list[float]:
        return [sum(ids) + 0.1 * place for place, ids in enumerate(batch)]

    conversations = [[1, 2], [3], [4, 5, 6]]
    assert largest_difference(steady, conversations) == 0
    assert largest_difference(reads_its_neighbours, conversations) == pytest.approx(0.02)
    assert largest_difference(reads_its_place, conversations) == pytest.approx(0.2)


# ── On a data set ────────────────────────────────────────────────────────────────────────────────────────────────


def checked(base: Checkpoint, method: str = "dpo", **options: Any) -> Outcome:
    project = make_judged_project()
    make_judgment(make_comparison(project, prompt=make_prompt(project, "Long?"), a_text="word " * 400), "a")
    snapshot = create_snapshot(project, project.slug, eval_share=0)
    return run_checks(snapshot, method, base, build_options(method, options))


@pytest.mark.django_db
@pytest.mark.usefixtures("data_dir")
def test_lengths_samples_and_special_tokens(tiny_model: Path) -> None:
    base = register_base_checkpoint("tiny", tiny_model)
    outcome = checked(base, max_tokens=256)
    found = said(outcome.findings)
    assert (found["boundary"], found["padding_is_end"], found["template"]) == ("passed", "warned", "passed")
    assert found["too_long_by_side"] == "warned"
    sides = outcome.histogram["sides"]
    assert {side: sum(drawn["bars"]) for side, drawn in sides.items()} == {"chosen": 13, "rejected": 13}
    assert sides["chosen"]["longest"] > 400 > 256 > sides["rejected"]["longest"]
    assert BINS * outcome.histogram["width"] > sides["chosen"]["longest"]
    assert outcome.rows["train"]["used"] == 12

    project = make_judged_project(3)
    snapshot = create_snapshot(project, "three", eval_share=0)
    counter = TokenCounter(tiny_model)
    ids = run_checks(snapshot, "dpo", base, build_options("dpo", {})).sample_ids
    shown = list(samples(snapshot, "dpo", counter, ids))
    assert len(shown) == 3
    [chosen, rejected] = shown[0].sides
    learnt = "".join(token.text for token in chosen.learnt)
    assert learnt.startswith("Thank you, I am glad to help.")
    assert learnt.endswith("<|im_end|>\n")
    assert "".join(token.text for token in chosen.read).endswith("<|im_start|>assistant\n")
    assert {token.text for token in chosen.read if token.is_special} == {"<|im_start|>", "<|im_end|>"}
    assert "".join(token.text for token in rejected.learnt).startswith("No idea")
    [scored, _] = next(iter(samples(snapshot, "reward", counter, ids))).sides
    assert [token.text for token in scored.learnt] == ["\n"]  # a reward model answers once, at the end


@pytest.mark.django_db
@pytest.mark.usefixtures("data_dir")
def test_rows_longer_than_the_limit_are_left_out_cut_or_refuse_the_start(tiny_model: Path) -> None:
    base = register_base_checkpoint("tiny", tiny_model)
    project = make_judged_project(6)
    long, filled = (
        make_comparison(project, prompt=make_prompt(project, text), a_text="word " * 400)
        for text in ("Long?", "word " * 300)
    )
    for comparison in (long, filled):
        make_judgment(comparison, "a")
    snapshot = create_snapshot(project, "set", eval_share=0)

    def look(method: str, long_rows: str) -> tuple[dict[str, str], dict[str, Any]]:
        options = build_options(method, {"max_tokens": 256, "long_rows": long_rows})
        outcome = run_checks(snapshot, method, base, options)
        train = outcome.rows["train"]
        written = [row["id"] for row in rows_of(snapshot, "train", method, base, options)]
        assert len(written) == train["used"]
        # KTO learns from each side by itself, and one side of it is short.
        assert written.count(long.pk) == (long_rows == "truncate") + (method == "kto") and filled.pk not in written
        return said(outcome.findings), train

    for method, used in (("dpo", 6), ("reward", 6), ("sft", 6), ("kto", 13)):
        found, train = look(method, "drop")
        by_side = "_by_side" if method in ("dpo", "reward") else ""
        assert f"too_long{by_side}" in found
        left_out = [long.pk, filled.pk]
        assert train["left_out"] == {"too_long": left_out}, method
        assert train["used"] == used

        found, train = look(method, "truncate")
        # A prompt that fills the window leaves nothing of the response to learn from.
        assert train["left_out"] == {"cut": [long.pk], "too_long": [filled.pk]}
        assert {f"cut{by_side}", f"too_long{by_side}"} <= set(found) and "none_cut" not in found
        assert (train["cut"], train["used"], train["longest_tokens"]) == (1, used + 1, 256)

        [sample] = samples(snapshot, method, TokenCounter(tiny_model), [long.pk], cut_at=256)
        assert len(sample.sides[0].read + sample.sides[0].learnt) == 256
        assert sample.sides[0].learnt[-1].text != "\n"  # what ends a response is gone

        found, train = look(method, "raise")
        assert found["long_rows_raise"] == "refused"


@pytest.mark.django_db
@pytest.mark.usefixtures("data_dir")
def test_a_template_that_renders_an_answered_prompt_otherwise_is_noticed(tiny_model: Path, tmp_path: Path) -> None:
    other = tmp_path / "model"
    shutil.copytree(tiny_model, other)
    # As reasoning models do: an open tag is put before the answer only when it is asked for.
    template = CHAT_TEMPLATE.replace("assistant\n' }}{% endif %}", "assistant\n<think>' }}{% endif %}")
    (other / "chat_template.jinja").write_text(template)
    write_manifest(other)
    outcome = checked(register_base_checkpoint("thinking", other))
    assert said(outcome.findings)["boundary_moves"] == "blocked"


@pytest.mark.django_db
@pytest.mark.usefixtures("data_dir")
def test_a_base_that_wrote_with_another_template_blocks(tiny_model: Path) -> None:
    base = register_base_checkpoint("tiny", tiny_model)
    source = publish_checkpoint(base)
    prompt = make_prompt(make_project())
    mine = TokenCounter(tiny_model).template_sha256
    written = Response.objects.create(
        prompt=prompt, source=source, sample_index=0, text="Hello", text_sha256="0" * 64, template_sha256=mine
    )
    base.refresh_from_db()
    assert said(checked(base).findings)["served_alike"] == "passed"
    Response.objects.filter(pk=written.pk).update(template_sha256="f" * 64)
    assert said(checked(base).findings)["served_otherwise"] == "blocked"


@pytest.mark.django_db
@pytest.mark.usefixtures("data_dir")
def test_the_templates_that_the_rows_were_written_with_are_counted(tiny_model: Path) -> None:
    base = register_base_checkpoint("tiny", tiny_model)
    snapshot = create_snapshot(make_judged_project(6), "six", eval_share=0)

    def found(method: str = "dpo") -> dict[str, str]:
        outcome = run_checks(snapshot, method, base, build_options(method, {}))
        return {one.code: sentence(one) for one in outcome.findings if one.code.startswith("written")}

    assert found() == {"written_unknown": "No chat template is recorded for the 12 responses of the training rows"}
    responses = list(Response.objects.order_by("pk"))
    mine = TokenCounter(tiny_model).template_sha256
    Response.objects.filter(pk__in=[one.pk for one in responses[:10]]).update(template_sha256=mine)
    assert "10 responses" in found()["written_alike"] and "for 2 none" in found()["written_alike"]
    # Chosen responses come first in each pair.
    Response.objects.filter(pk=responses[0].pk).update(template_sha256="f" * 64)
    Response.objects.filter(pk__in=[responses[1].pk, responses[3].pk]).update(template_sha256="e" * 64)
    assert found()["written_otherwise"].startswith("3 of 12 responses of the training rows were written with another")
    assert "eeeeeeeeeeee… (2), ffffffffffff… (1)" in found()["written_otherwise"]
    assert "1 of 6" in found("sft")["written_otherwise"], "of chosen responses alone"
    outcome = run_checks(snapshot, "dpo", base, build_options("dpo", {}))
    assert said(outcome.findings)["written_otherwise"] == "warned"


@pytest.mark.django_db
@pytest.mark.usefixtures("data_dir")
def test_pairs_with_equal_sides_in_an_older_data_set_are_left_out_and_counted(tiny_model: Path) -> None:
    base = register_base_checkpoint("tiny", tiny_model)
    snapshot = create_snapshot(make_judged_project(7), "seven", eval_share=0)
    file = Path(storages["snapshots"].path(snapshot_path(snapshot.sha256, "train")))
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    for row in rows[:5]:
        row["b"]["text"] = row["a"]["text"]
    file.chmod(0o644)
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    options = build_options("dpo", {})
    outcome = run_checks(snapshot, "dpo", base, options)
    assert outcome.rows["train"]["used"] == 2
    [left_out] = [sentence(one) for one in outcome.findings if one.code == "no_side"]
    assert left_out == "Comparisons without a side to learn from left out: 5 between equal texts"
    written = list(rows_of(snapshot, "train", "dpo", base, options))
    assert [row["id"] for row in written] == [row["id"] for row in rows[5:]], "what the job gets"


def test_every_finding_has_words_of_its_own() -> None:
    folder = Path(__file__).resolve().parents[1] / "rlhf" / "preflight"
    source = "".join(path.read_text() for path in folder.glob("*.py") if path.name != "sentences.py")
    used = set(re.findall(r'(?:passed|warned|blocked|refused|by_share)\(\s*"(\w+)"', source))
    assert used <= set(WORDS), used - set(WORDS)
