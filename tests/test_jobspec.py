"""The contract between web and GPU side: strict reading, atomic writing, complete directories."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pytest

from rlhf.jobspec import (
    JobSpec,
    Result,
    check_manifest,
    complete_checkpoints,
    publish_directory,
    write_json_atomically,
)
from rlhf.options import DPOOptions, SpecError, build_options


def spec(**changes: object) -> JobSpec:
    values = {"job_id": 7, "method": "dpo", "base_model_dir": "/models/base", "options": build_options("dpo", {})}
    return JobSpec(**{**values, **changes})  # type: ignore[arg-type]


def test_a_spec_reads_back_as_it_was_written(tmp_path: Path) -> None:
    written = spec(options=build_options("dpo", {"beta": "0.3", "use_lora": "no"}), resume_from="step-40")
    written.write(tmp_path)
    assert JobSpec.read(tmp_path) == written
    assert [path.name for path in tmp_path.iterdir()] == ["spec.json"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"colour": "red"}, "unknown key 'colour'"),
        ({"options": {"learning_rat": 1e-4}}, "unknown option 'learning_rat' for dpo"),
        ({"method": "magic"}, "unknown method 'magic'"),
        ({"job_id": "7"}, "job_id must be a whole number"),
        ({"base_model_dir": None}, "base_model_dir must be a string"),
        ({"options": [1]}, "options must be an object"),
        ({"resume_from": "../../elsewhere"}, "resume_from must name a checkpoint"),
        ({"format_version": 2}, "format_version 2"),
    ],
)
def test_a_spec_that_cannot_be_meant_is_refused_by_name(tmp_path: Path, change: dict, words: str) -> None:
    (tmp_path / "spec.json").write_text(json.dumps(asdict(spec()) | change))
    with pytest.raises(SpecError, match=words):
        JobSpec.read(tmp_path)


@pytest.mark.parametrize(("text", "words"), [("{", "not valid JSON"), ("[]", "one JSON object"), ("\xff\xfe", "JSON")])
def test_a_spec_that_is_no_json_object_is_refused(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "spec.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(SpecError, match=words):
        JobSpec.read(tmp_path)


def test_a_missing_key_is_named(tmp_path: Path) -> None:
    raw = asdict(spec())
    del raw["base_model_dir"]
    (tmp_path / "spec.json").write_text(json.dumps(raw))
    with pytest.raises(SpecError, match="'base_model_dir' is missing"):
        JobSpec.read(tmp_path)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"learning_rate": "fast"}, "learning_rate: 'fast' is not a number"),
        ({"learning_rate": "nan"}, "learning_rate"),
        ({"max_steps": "inf"}, "max_steps: 'inf' is not a whole number"),
        ({"batch_size": 2.5}, "batch_size: 2.5 is not a whole number"),
        ({"batch_size": True}, "batch_size: True is not a number"),
        ({"batch_size": 6}, "not a multiple of micro_batch_size"),
        ({"bf16": "perhaps"}, "bf16: 'perhaps' is not true or false"),
        ({"loss_type": "magic"}, "loss_type: 'magic' is not one of"),
        ({"beta": 99}, "beta: 99.0 is outside"),
        ({"label_smoothing": 0.1}, "label_smoothing has no effect on loss_type sigmoid"),
    ],
)
def test_an_option_that_cannot_be_meant_is_refused_by_name(given: dict, words: str) -> None:
    with pytest.raises(SpecError, match=words):
        build_options("dpo", given)


def test_options_from_a_form_are_typed() -> None:
    options = build_options("dpo", {"learning_rate": "5e-5", "use_lora": "off", "max_steps": "12", "loss_type": "ipo"})
    assert options == DPOOptions(learning_rate=5e-5, use_lora=False, max_steps=12, loss_type="ipo")


def test_a_result_is_absent_until_it_is_written(tmp_path: Path) -> None:
    assert Result.read(tmp_path) is None
    Result(status="succeeded", metrics={"eval_accuracy": 0.64}).write(tmp_path)
    assert Result.read(tmp_path) == Result(status="succeeded", metrics={"eval_accuracy": 0.64})


def test_json_that_cannot_be_written_leaves_the_old_file_and_no_other(tmp_path: Path) -> None:
    path = tmp_path / "spec.json"
    write_json_atomically(path, {"version": 1})
    with pytest.raises(TypeError):
        write_json_atomically(path, {"version": object()})
    assert json.loads(path.read_text()) == {"version": 1}
    assert list(tmp_path.iterdir()) == [path]


def test_a_published_directory_is_what_its_manifest_says(tmp_path: Path) -> None:
    draft = tmp_path / "draft"
    (draft / "sub").mkdir(parents=True)
    (draft / "weights").write_bytes(b"abc")
    (draft / "sub" / "more").write_bytes(b"def")
    final = tmp_path / "checkpoints" / "step-2"
    publish_directory(draft, final)
    check_manifest(final)
    assert not draft.exists()

    (final / "weights").write_bytes(b"abd")
    with pytest.raises(SpecError, match="weights is not the file"):
        check_manifest(final)
    (final / "weights").unlink()
    with pytest.raises(SpecError, match="weights is missing"):
        check_manifest(final)
    (final / "manifest.json").write_text("{")
    with pytest.raises(SpecError, match="not written to the end"):
        check_manifest(final)


def test_only_complete_checkpoints_are_listed_in_order_of_their_steps(tmp_path: Path) -> None:
    for name in ("step-100", "step-20", "step-half"):
        (tmp_path / "checkpoints" / name).mkdir(parents=True)
    for name in ("step-100", "step-20"):
        (tmp_path / "checkpoints" / name / "manifest.json").write_text("{}")
    (tmp_path / "checkpoints" / "step-120").mkdir()
    (tmp_path / "checkpoints" / "step-x").mkdir()
    (tmp_path / "checkpoints" / "step-x" / "manifest.json").write_text("{}")
    assert complete_checkpoints(tmp_path) == ["step-20", "step-100"]
