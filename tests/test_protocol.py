"""Protocols: what is stored is what is asked, and what does not fit is refused by name."""

from __future__ import annotations

import pytest

from annotation.errors import DomainError
from annotation.protocol import PRESETS, Aspect, Demand, Protocol, Scale


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_survives_storage_and_has_keys_of_its_own(name: str) -> None:
    protocol = PRESETS[name][1]
    protocol.check()
    assert Protocol.from_json(protocol.to_json()) == protocol
    keys = [verdict.key for verdict in protocol.verdicts]
    assert len(keys) == len(set(keys))


def test_the_default_is_stored_as_nothing() -> None:
    assert Protocol().to_json() == {}
    assert Protocol.from_json({}).scale == Scale.SEVEN


@pytest.mark.parametrize(
    ("value", "word"),
    [
        ({"scal": "seven"}, "scal"),
        ({"scale": "nine"}, "nine"),
        ({"note_demand": "maybe"}, "maybe"),
        ({"aspects": [{"name": "Fluency!", "label": "Fluency"}]}, "Fluency!"),
        ({"aspects": [{"name": "fluency", "label": "Fluency", "low": 5, "high": 1}]}, "fluency"),
        ({"aspects": [{"name": "a", "label": "A"}, {"name": "a", "label": "B"}]}, "name of its own"),
        ({"aspects": [{"name": "a"}]}, "label"),
        ({"chips": [""]}, "chip"),
        ({"scale": "ranking", "edit_demand": "optional"}, "ranking"),
        ({"max_turns": 0}, "max_turns"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(value: dict, word: str) -> None:
    with pytest.raises(DomainError, match=word):
        Protocol.from_json(value)


def test_the_forced_scales_have_no_tie_and_mirror() -> None:
    for scale in (Scale.FOUR, Scale.EIGHT):
        values = [int(verdict.value) for verdict in Protocol(scale=scale, allow_neither=False).verdicts]
        assert 0 not in values
        assert values == [-value for value in reversed(values)]


def test_a_required_part_keeps_a_digit_from_sending() -> None:
    assert not Protocol().needs_more_than_a_key
    assert Protocol(aspects=(Aspect("safety", "Safety"),)).needs_more_than_a_key
    assert Protocol(note_demand=Demand.REQUIRED).needs_more_than_a_key
