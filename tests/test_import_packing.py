"""What an import packs is what Postgres reads back, column by column."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from django.utils import timezone

from annotation.importers.packing import timestamp
from annotation.models import Comparison, Judgment, Prompt, Response
from tests.importing import annotation, import_lines, reasons, touchstone_row

ODD = 'a "quote", a \\ and a \\u0041;\ttab,\r\nline\u2028end, \x01\x7f, é e\u0301, 漢字, \U0001f642, \u202e, \ufeff'
NESTED: dict[str, Any] = {
    ODD: [None, True, False, 0, -1, 2**70, 0.1, -1.5e-300, 1e15, "", [], {}, [[{"deep": ODD}]]],
    "": None,
}


def imported(tmp_path: Path, **changes: Any) -> Comparison:
    done = import_lines(tmp_path, [touchstone_row(**changes)])
    assert done["skipped"] == []
    return Comparison.objects.get(external_id=changes.get("id", "row-1"))


@pytest.mark.django_db
def test_texts_and_objects_come_back_as_they_were(tmp_path: Path) -> None:
    own = [{"role": "system", "content": ""}, {"role": "user", "content": ODD}]
    long = ODD * 2000
    comparison = imported(
        tmp_path,
        id=f"id {ODD}",
        group=f"group {ODD}",
        lang="zh-Hant-é",
        tags=["é" * 60, "格式:表"],
        messages=own,
        responses=[
            {"model": f"model {ODD}", "text": long},
            {"model": "y", "text": "", "messages": [{"role": "user", "content": f"{ODD}?"}]},
        ],
        meta=NESTED,
    )
    assert comparison.prompt.messages == own
    assert (comparison.prompt.group, comparison.prompt.lang, comparison.lang) == (f"group {ODD}", *["zh-Hant-é"] * 2)
    assert comparison.prompt.tags == ["é" * 60, "格式:表"]
    assert comparison.meta == NESTED
    a, b = comparison.response_a, comparison.response_b
    assert (a.source.name, a.text, a.messages, a.template_sha256) == (f"model {ODD}", long, None, "")
    assert (b.text, b.messages, b.finish_reason) == ("", [{"role": "user", "content": f"{ODD}?"}], "")


@pytest.mark.django_db
def test_every_kind_of_verdict_comes_back_as_it_was(tmp_path: Path) -> None:
    responses = [{"model": f"m{number}", "text": str(number)} for number in range(4)]
    extras = {"ratings": {ODD[:60]: [1, None, 2.5, -0.0]}, "axes": {"harmless": -2}, "chips": [ODD[:60], "", "short"]}
    votes = [
        annotation(annotator="ranks", preferred_index=None, ranking=[2, 1, 2, 9], rationale=ODD, **extras),
        annotation(annotator="neither", preferred_index=None, neither=True, said=NESTED),
    ]
    comparison = imported(tmp_path, responses=responses, annotations=votes)
    ranks, neither = comparison.judgments.order_by("pk")
    assert (ranks.preference, ranks.ranking, ranks.strength, ranks.note) == ("ranked", [2, 1, 2, 3], None, ODD)
    assert (ranks.ratings, ranks.axes, ranks.chips) == tuple(extras.values())
    assert (neither.preference, neither.ranking, neither.meta) == ("neither", None, {"said": NESTED})
    assert (neither.note, neither.ratings, neither.axes, neither.chips) == ("", {}, {}, [])
    graded = imported(tmp_path, id="pair", prompt="p", annotations=[annotation(strength=-4)])
    assert graded.judgments.get().strength == -4


@pytest.mark.django_db
def test_numbers_and_times_come_back_as_they_were(tmp_path: Path) -> None:
    before = timezone.now()
    likely = imported(tmp_path, meta={"sampling_probability": 1 / 3})
    certain = imported(tmp_path, id="two", prompt="p", meta={"sampling_probability": 1}, annotations=[])
    unknown = imported(tmp_path, id="three", prompt="q")
    assert (likely.sampling_probability, certain.sampling_probability) == (1 / 3, 1)
    assert unknown.sampling_probability is None
    assert (likely.required_count, certain.required_count, likely.assigned_count) == (0, 1, 0)
    assert 0 <= likely.queue_key < 1
    assert likely.queue_key != unknown.queue_key
    assert (likely.response_count, likely.written_by, likely.batch_id is None) == (2, None, False)
    for model in (Prompt, Response, Comparison, Judgment):
        times = model._default_manager.values_list("created_at", flat=True)
        assert before <= min(times) <= max(times) <= timezone.now()
    votes = Judgment.objects.all()
    assert {(vote.public_id.version, vote.is_late, vote.superseded_at) for vote in votes} == {(4, False, None)}


@pytest.mark.parametrize(
    "moment", [datetime(1999, 12, 31, 23, 59, 59, 999_999, UTC), datetime(2026, 11, 22, 9, 0, 0, 1, UTC)]
)
def test_moments_are_counted_in_microseconds_from_2000(moment: datetime) -> None:
    assert datetime(2000, 1, 1, tzinfo=UTC) + timedelta(microseconds=timestamp(moment)) == moment


@pytest.mark.django_db
def test_what_is_no_number_is_refused_and_the_next_row_goes_in(tmp_path: Path) -> None:
    rows = [json.dumps(touchstone_row(n, meta={"score": value})).encode() for n, value in enumerate((float("nan"), 1))]
    endless = json.dumps(touchstone_row(2, meta={"score": 0})).replace('"score": 0', '"score": 1e999').encode()
    done = import_lines(tmp_path, [rows[0], endless, rows[1]])
    assert reasons(done) == [(1, "NaN is not JSON"), (2, "the number 1e999 is too large")]
    assert Comparison.objects.get().meta == {"score": 1}
