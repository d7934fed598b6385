"""Figures: which metrics stand in which, and where their lines lie."""

from __future__ import annotations

import itertools
import json
import math
import re

import pytest

from rlhf.curves import FIGURES, figures_for
from rlhf.models import Point
from rlhf.plots import Plot, draw, format_ticks, format_value, round_ticks, series_of, smoothed


def points(values: dict[int, float]) -> list[Point]:
    return [Point(step, value, value, value) for step, value in values.items()]


def plot_of(logged: dict[str, list[Point]], slug: str, **facts: object) -> Plot:
    figure = next(figure for figure in figures_for(logged) if figure.slug == slug)
    return draw(figure, series_of(figure, logged), **{"last_step": 0, **facts})  # type: ignore[arg-type]


def test_each_metric_stands_in_one_figure() -> None:
    names = [name for figure in FIGURES for line in figure.lines for name in line.names]
    assert len(names) == len(set(names))
    assert len({figure.slug for figure in FIGURES}) == len(FIGURES)


def test_what_is_logged_is_drawn_and_nothing_else() -> None:
    logged = [
        "step",
        "time",
        "loss",
        "eval_loss",
        "eval_runtime",
        "objective/kl",
        "logits/chosen",
        "rewards/polite/mean",
    ]
    assert [str(figure.title) for figure in figures_for(logged)] == [
        "Loss",
        "Distance from the reference (KL)",
        "rewards/polite/mean",
    ]


def test_training_and_held_out_share_a_figure_and_are_read_together() -> None:
    logged = {"loss": points({1: 0.7, 2: 0.6, 4: 0.4}), "eval_loss": points({2: 0.65, 4: 0.5})}
    plot = plot_of(logged, "loss", last_step=8, method="dpo")
    assert plot.summary == "Loss: train 0.40, held-out 0.50 at the last logged step"
    assert json.loads(plot.readings) == [
        [125, "step 1: train 0.70"],
        [250, "step 2: train 0.60, held-out 0.65"],
        [500, "step 4: train 0.40, held-out 0.50"],
    ]
    assert "0.30–0.69" in plot.band_text
    assert plot.band is not None
    top, height = plot.band
    ends = {end.text.split()[0]: 10 * end.top for end in plot.ends}
    assert top <= ends["train"] <= top + height  # 0.40 lies in the band, and so does its label
    (train, _), (held_out, _) = plot.bold
    assert re.findall(r"[\d.]+ ", train) == ["125 ", "250 ", "500 "]
    assert held_out.count("L") == 1


def test_lines_lie_where_their_values_say() -> None:
    plot = plot_of({"mean_token_accuracy": points({1: 0.0, 2: 0.5, 3: 1.0})}, "token_accuracy")
    heights = [float(pair.split()[1]) for pair in plot.bold[0][0][1:].split("L")]
    assert heights[1] - heights[2] == pytest.approx(heights[0] - heights[1], abs=1)
    rows = {row.text: 10 * row.top for row in plot.rows}
    assert rows["0.0"] == pytest.approx(heights[0], abs=1) and rows["1.0"] == pytest.approx(heights[2], abs=1)


def test_a_gradient_norm_is_drawn_by_its_powers_of_ten() -> None:
    plot = plot_of({"grad_norm": points({1: 0.1, 2: 1.0, 3: 10.0})}, "grad_norm")
    heights = [float(pair.split()[1]) for pair in plot.bold[0][0][1:].split("L")]
    assert heights[0] - heights[1] == pytest.approx(heights[1] - heights[2], abs=1)
    assert {row.text for row in plot.rows} >= {"0.1", "1", "10"}


def test_long_runs_get_a_running_mean_over_what_was_logged() -> None:
    noisy = {step: 1.0 + (-1) ** step * 0.5 for step in range(1, 101)}
    plot = plot_of({"loss": points(noisy)}, "loss")
    assert len(plot.faint) == 1 and len(plot.bold) == 1
    assert abs(smoothed(list(noisy.values()))[-1] - 1.0) < 0.25
    together = {"loss": [Point(step, 1.0, 0.5, 1.5) for step in range(5, 205, 5)]}
    plot = plot_of(together, "loss")
    assert len(plot.areas) == 1 and not plot.faint


def test_labels_at_the_end_never_lie_over_each_other() -> None:
    logged = {name: points({1: value, 2: value}) for name, value in
              {"mean_reward": 0.50, "max_reward": 0.501, "min_reward": 0.499}.items()}  # fmt: skip
    tops = [end.top for end in plot_of(logged, "scores").ends]
    assert all(lower - upper >= 7 for upper, lower in itertools.pairwise(tops))
    assert tops[0] >= 0 and tops[-1] <= 100


@pytest.mark.parametrize(
    "value,text",
    [(0, "0"), (0.6931, "0.69"), (-12.5, "−12.50"), (1234.6, "1,235"), (5e-6, "5.0e−6"), (2.5e7, "2.5e+07")],
)
def test_values_are_short(value: float, text: str) -> None:
    assert format_value(value) == text


@pytest.mark.parametrize("low,high", [(0, 1), (-3.2, 4.7), (1e-6, 9e-6), (0, 12345), (0.69, 0.693)])
def test_ticks_are_few_round_and_inside(low: float, high: float) -> None:
    ticks = round_ticks(low, high, 4)
    assert 1 <= len(ticks) <= 5
    assert all(low - 1e-9 <= tick <= high + 1e-9 for tick in ticks)


def test_a_held_out_share_is_shown_with_its_doubt() -> None:
    logged = {"accuracy": points({1: 0.5, 2: 1.0}), "eval_accuracy": points({2: 1.0})}
    figure = next(figure for figure in FIGURES if figure.slug == "accuracy")
    plot = draw(figure, series_of(figure, logged, held_out_rows=3), last_step=2, method="reward")
    assert {end.text for end in plot.ends} == {"train 1.00", "held-out 1.00 (0.44–1.00)"}


@pytest.mark.parametrize(
    "ticks,texts",
    [([0, 1, 2], ["0", "1", "2"]), ([-0.5, 0, 0.5], ["−0.5", "0.0", "0.5"]), ([0, 2500], ["0", "2,500"])],
)
def test_an_axis_has_one_kind_of_number(ticks: list[float], texts: list[str]) -> None:
    assert format_ticks(ticks) == texts


def test_constant_and_single_values_can_be_drawn() -> None:
    for values in ({1: 0.0}, {1: 3.0}, {1: 5.0, 2: 5.0}, {7: -2.0}):
        plot = plot_of({"loss": points(values)}, "loss", method="sft")
        assert not re.search(r"nan|inf", plot.bold[0][0])
        assert math.isfinite(plot.ends[0].top)
