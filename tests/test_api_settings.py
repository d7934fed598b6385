"""A project's settings by program: what does not fit is refused by the name of its field, and nothing is changed."""

from __future__ import annotations

from uuid import uuid4

import pytest

from annotation.models import Role
from tests.calling import Program
from tests.factories import make_comparison, make_judgment, make_project

pytestmark = pytest.mark.django_db


@pytest.mark.parametrize(
    ("protocol", "field"),
    [
        ({"max_turns": "x"}, "max_turns"),
        ({"max_turns": True}, "max_turns"),
        ({"rewrite_below": "low", "aspects": [{"name": "a", "label": "A"}]}, "rewrite_below"),
        ({"rewrite_below": 7}, "rewrite_below"),
        ({"chips": "abc"}, "chips"),
        ({"chips": [{"a": 1}]}, "chips[0]"),
        ({"chips": [f"chip {n}" for n in range(21)]}, "chips has 21"),
        ({"spans": "false"}, "spans"),
        ({"allow_tie": "maybe"}, "allow_tie"),
        ({"scale": ["seven"]}, "scale"),
        ({"aspects": [{"nme": "a", "label": "A"}]}, "aspects[0]: unknown key “nme”"),
        ({"aspects": [{"name": "a", "label": "A", "low": "1"}]}, "aspects[0].low"),
        ({"aspects": {"name": "a"}}, "aspects"),
        ({"axes": ["a"]}, "axes[0]"),
        ([], "object"),
    ],
)
def test_a_protocol_of_other_types_is_refused_by_field(protocol: object, field: str) -> None:
    project = make_project()
    status, refusal = Program(project, Role.ADMIN).patch("", protocol=protocol, name="Other")
    assert status == 422
    assert field in refusal["detail"]
    assert "__init__" not in refusal["detail"]
    project.refresh_from_db()
    assert (project.protocol, project.name) == ({}, project.slug)


def test_a_protocol_that_fits_is_voted_under() -> None:
    comparison = make_comparison()
    admin = Program(comparison.project, Role.ADMIN)
    protocol = {"rewrite_below": 0.5, "aspects": [{"name": "a", "label": "A", "low": 1, "high": 3}], "chips": ["kind"]}
    assert admin.patch("", protocol=protocol)[1]["protocol"]["rewrite_below"] == 0.5
    [item] = admin.post("claim/")[1]
    url = f"/api/v1/assignments/{item['assignment']}/judgment/"
    status, _ = admin.post(url, judgment=str(uuid4()), choice="2", ratings={"a": [1, 1]}, chips=["kind"])
    assert (status, comparison.judgments.count()) == (200, 1)


@pytest.mark.parametrize("name", ["judgments_per_comparison", "overlap_count", "escalate_to", "gold_every"])
def test_a_count_that_the_page_does_not_take_is_refused(name: str) -> None:
    status, refusal = Program(make_project(), Role.ADMIN).patch("", **{name: 1001})
    assert status == 422
    assert name in refusal["detail"]


def test_agreement_has_its_intervals() -> None:
    project = make_project()
    for number in range(12):
        comparison = make_comparison(project)
        make_judgment(comparison, "a", -1)
        make_judgment(comparison, "b" if number % 4 == 0 else "a", 1 if number % 4 == 0 else -2)
    status, figures = Program(project, Role.REVIEWER).get("agreement/", humans_only="true")
    low, high = figures["intervals"]["raw_agreement"]
    assert (status, low < figures["raw_agreement"] == 0.75 < high) == (200, True)
