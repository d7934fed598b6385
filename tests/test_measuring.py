"""What a worker measures before a launch: one step of the job itself, and what that sampled."""

from __future__ import annotations

from pathlib import Path

import pytest

from annotation.services import DomainError
from rlhf.options import build_options
from rlhf.preflight.probe import cut_completions, run_probe
from rlhf.services import create_snapshot, register_base_checkpoint
from rlhf.services.launching import check_launch, findings_of, measure_launch, start_checked_job
from tests.factories import make_judged_project


@pytest.mark.parametrize(
    ("share", "batch", "expected"),
    [
        (0.25, 32, {"completions_end": "passed"}),
        (0.5, 32, {"many_completions_cut": "warned"}),
        (1.0, 32, {"all_completions_cut": "blocked"}),
        (1.0, 4, {"all_completions_cut": "warned"}),  # a handful says little
    ],
)
def test_how_many_sampled_completions_were_cut(share: float, batch: int, expected: dict[str, str]) -> None:
    options = build_options("grpo", {"rule": "length", "rule_argument": "20", "batch_size": batch})
    logged = [{"step": 1, "completions/clipped_ratio": share}]
    [finding] = cut_completions(options, logged)
    assert {finding.code: finding.level.name.lower()} == expected
    assert finding.values == {"count": share * batch, "total": batch, "tokens": 128}
    assert not list(cut_completions(build_options("dpo", {}), logged))


@pytest.mark.slow
@pytest.mark.training
@pytest.mark.django_db
@pytest.mark.usefixtures("data_dir")
def test_a_launch_whose_sampled_completions_are_all_cut_is_held(tiny_model: Path) -> None:
    """An untrained model does not end its turn within 4 tokens."""
    snapshot = create_snapshot(make_judged_project(), "set", eval_share=0)
    options = {"rule": "length", "rule_argument": "20", "max_completion_tokens": 4, "batch_size": 8}
    base = register_base_checkpoint("tiny", tiny_model)
    check = check_launch(snapshot=snapshot, method="ppo", base=base, options=options)
    measure_launch(check, run_probe)
    found = {finding.code: finding.level.name.lower() for finding in findings_of(check)}
    assert (found["dry_step"], found["all_completions_cut"]) == ("passed", "blocked")
    with pytest.raises(DomainError, match="All 8 completions"):
        start_checked_job(check, proceed=False)
