"""Every loss of DPO starts at the number that its formula gives for policy = reference, and moves what it should."""

from __future__ import annotations

import math
from typing import Any, get_args

import pytest

from rlhf.dpo_losses import Loss, parse_mix
from rlhf.jobspec import Result
from rlhf.options import DPOOptions, SpecError, build_options
from tests.training.conftest import JobRunner, losses_of, metrics_of

BETA, EPSILON = 0.5, 0.1
LN2 = math.log(2)

# With both log-ratios 0: σ = ½, so −log σ = ln 2.
STARTS = {
    "sigmoid": LN2,
    "hinge": 1.0,
    "ipo": (1 / (2 * BETA)) ** 2,
    "exo_pair": 0.5 * (-LN2 - math.log(1 - EPSILON)) + 0.5 * (-LN2 - math.log(EPSILON)),
    "nca_pair": 2 * LN2,
    "robust": ((1 - EPSILON) * LN2 - EPSILON * LN2) / (1 - 2 * EPSILON),
    "bco_pair": 2 * LN2,
    "sppo_hard": 2 * (0.5 / BETA) ** 2,
    "aot": LN2,
    "aot_unpaired": LN2,
    "apo_zero": 1.0,
    "apo_down": 1.0,
    "discopop": 0.5 * LN2 + 0.5,
    "sft": None,  # the negative log-likelihood of the chosen side, which the test takes from the run itself
    "sigmoid_norm": LN2,
}
SMOOTHED = {"robust", "exo_pair", "aot", "aot_unpaired"}


def run(jobs: JobRunner, name: str, **options: Any) -> tuple[dict[int, float], dict[str, float]]:
    given = {"epochs": 3, "use_lora": False, "learning_rate": 2e-3, "beta": BETA} | options
    job_dir = jobs.run(name, "dpo", **given)
    result = Result.read(job_dir)
    assert result is not None
    return losses_of(job_dir), result.metrics | {"first_logp": metrics_of(job_dir)[0]["logps/chosen"]}


def test_every_loss_is_here() -> None:
    assert set(get_args(Loss)) == set(STARTS)


@pytest.mark.slow
@pytest.mark.training
@pytest.mark.parametrize("loss", STARTS)
def test_each_loss_starts_at_its_formula_and_prefers_what_people_preferred(jobs: JobRunner, loss: str) -> None:
    losses, metrics = run(jobs, loss, loss_type=loss, label_smoothing=EPSILON if loss in SMOOTHED else 0.0)
    expected = STARTS[loss]
    if expected is not None:
        assert losses[1] == pytest.approx(expected, abs=1e-3)
    if loss != "discopop":  # it is not meant to fall at first: its exponential part grows in weight
        assert losses[max(losses)] < losses[1]
    if loss == "sft":
        assert metrics["eval_logps/chosen"] > metrics["first_logp"]
    else:
        assert metrics["eval_rewards/margins"] > 0.05
        assert metrics["eval_rewards/accuracies"] > 0.9


@pytest.mark.slow
@pytest.mark.training
def test_a_mix_is_the_weighted_sum(jobs: JobRunner) -> None:
    mixed, _ = run(jobs, "mixed", max_steps=1, loss_type="sigmoid", loss_mix="hinge:0.5, apo_zero:2")
    assert mixed[1] == pytest.approx(LN2 + 0.5 * 1.0 + 2 * 1.0, abs=1e-3)


@pytest.mark.slow
@pytest.mark.training
@pytest.mark.parametrize(
    "options",
    [
        {"f_divergence": "forward_kl"},
        {"f_divergence": "js_divergence"},
        {"f_divergence": "alpha_divergence", "f_alpha": 0.3},
        {"ld_alpha": 0.5},
        {"wpo_weighting": True},
        {"loss_type": "sigmoid_norm", "beta": 5},
        {"loss_type": "discopop", "discopop_tau": 0.1},
        {"loss_mix": "sft:0.2", "ld_alpha": 0.3},
    ],
    ids=str,
)
def test_what_can_be_combined_learns(jobs: JobRunner, options: dict[str, Any]) -> None:
    losses, metrics = run(jobs, "combined", **options)
    assert metrics["eval_rewards/margins"] > 0.02
    assert metrics["eval_rewards/accuracies"] > 0.9
    if "f_divergence" in options:  # f'(1) is the same on both sides, so the start is ln 2 under each
        assert losses[1] == pytest.approx(LN2, abs=1e-3)


@pytest.mark.slow
@pytest.mark.training
def test_kto_without_a_point_of_reference_starts_at_one_half_and_learns(jobs: JobRunner) -> None:
    job_dir = jobs.run(
        "apo", "kto", loss_type="apo_zero_unpaired", batch_size=8, micro_batch_size=4, epochs=6, use_lora=False,
        learning_rate=2e-3,
    )  # fmt: skip
    losses, result = losses_of(job_dir), Result.read(job_dir)
    assert losses[1] == pytest.approx(0.5, abs=1e-3)
    assert result is not None and result.metrics["eval_rewards/margins"] > 0.2


def test_mixes_are_read_and_what_is_wrong_in_them_is_named() -> None:
    known = get_args(Loss)
    assert parse_mix("sigmoid", " sft:0.2 , ipo:1", known) == (["sigmoid", "sft", "ipo"], [1.0, 0.2, 1.0])
    assert parse_mix("ipo", "", known) == (["ipo"], [1.0])
    for mix, problem in {
        "magic:1": "'magic' is not one of sigmoid",
        "sft": "'sft' is not a loss and its weight",
        "sft:0": "'sft:0' is not a loss and its weight",
        "sft:nan": "'sft:nan' is not a loss and its weight",
        "sigmoid:1": "sigmoid is there already",
    }.items():
        with pytest.raises(SpecError, match=f"loss_mix: {problem}"):
            build_options("dpo", {"loss_mix": mix})


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"label_smoothing": 0.1}, "label_smoothing has no effect on loss_type sigmoid"),
        ({"loss_type": "exo_pair"}, "label_smoothing must be above 0 for loss_type exo_pair"),
        ({"f_divergence": "forward_kl", "loss_mix": "bco_pair:1"}, "forward_kl is not defined for loss_type bco_pair"),
        ({"f_divergence": "forward_kl", "loss_type": "sft"}, "f_divergence has no effect on loss_type sft alone"),
        ({"f_alpha": 0.2}, "f_alpha has no effect on f_divergence reverse_kl"),
        ({"f_divergence": "alpha_divergence", "f_alpha": 1}, "f_alpha 1 is the limit"),
        ({"loss_type": "sft", "ld_alpha": 0.5}, "ld_alpha has no effect on loss_type sft alone"),
        ({"wpo_weighting": True, "loss_type": "aot"}, "wpo_weighting cannot be used with loss_type aot"),
        ({"wpo_weighting": True, "loss_mix": "sft:1"}, "wpo_weighting cannot be used with loss_type sft"),
        ({"loss_type": "aot", "micro_batch_size": 1}, "micro_batch_size must be at least 2: loss_type aot sorts"),
        ({"discopop_tau": 0.1}, "discopop_tau has no effect on loss_type sigmoid"),
    ],
)
def test_what_would_be_ignored_in_silence_is_refused(options: dict[str, Any], problem: str) -> None:
    with pytest.raises(SpecError, match=problem):
        build_options("dpo", options)


def test_smoothing_reaches_the_losses_that_know_it() -> None:
    for loss in sorted(SMOOTHED):
        built = build_options("dpo", {"loss_type": loss, "label_smoothing": "0.1"})
        assert isinstance(built, DPOOptions) and built.losses == ([loss], [1.0])
