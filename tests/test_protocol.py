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


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_asks_for_rewriting_where_it_asks_what_feeds_it(name: str) -> None:
    protocol = PRESETS[name][1]
    protocol.check_sense()
    assert protocol.rewrite_neither == (protocol.allow_neither and not protocol.conversations)
    assert (protocol.rewrite_below is not None) == bool(protocol.aspects)


@pytest.mark.parametrize(
    ("protocol", "sentence"),
    [
        (Protocol(rewrite_below=0.5), "rewriting below a score needs scores"),
        (Protocol(rewrite_neither=True, allow_neither=False), "rewriting when neither is good needs that answer"),
        (Protocol(chips_demand=Demand.REQUIRED), "there is none to pick"),
    ],
)
def test_what_asks_for_something_that_is_never_offered_is_refused_but_can_be_read(
    protocol: Protocol, sentence: str
) -> None:
    assert Protocol.from_json(protocol.to_json()) == protocol
    with pytest.raises(DomainError, match=sentence):
        protocol.check_sense()
