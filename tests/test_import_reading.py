"""What a line holds is what is read, whichever of the two readers takes it."""

from __future__ import annotations

import io
import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from annotation.importers.reading import Record, read_records

_TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)
_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | _TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_TEXT, inner, max_size=3),
    max_leaves=8,
)
_OBJECTS = st.dictionaries(_TEXT, _VALUES, max_size=4)


def read_line(line: str) -> Record:
    [record] = read_records(io.BufferedReader(io.BytesIO(f"{line}\n".encode())))
    return record


@settings(deadline=None, max_examples=60)
@given(_OBJECTS, st.booleans())
def test_objects_are_read_as_they_were_written(value: dict[str, Any], in_ascii: bool) -> None:
    read = read_line(json.dumps(value, ensure_ascii=in_ascii)).value
    assert repr(read) == repr(value)  # tells −0.0 from 0, and 2 ** 70 from 2.0 ** 70


@settings(deadline=None, max_examples=60)
@given(_OBJECTS, st.integers(64, 90), st.sampled_from([-1, 1]))
def test_large_numbers_stay_whole(value: dict[str, Any], bits: int, sign: int) -> None:
    value["large"] = [sign * (2**bits + 1)]
    assert read_line(json.dumps(value)).value == value


@settings(deadline=None, max_examples=60)
@given(_VALUES, _VALUES, _OBJECTS, st.sampled_from(["", '"', '""', '" "']))
def test_no_key_occurs_twice(first: Any, second: Any, beside: dict[str, Any], quotes: str) -> None:
    # Quotation marks written as escapes would make up for those of a key that is dropped.
    beside["quotes"] = "ESCAPES"
    inner = f'{{"key": {json.dumps(first)}, "key": {json.dumps(second)}}}'
    line = json.dumps(beside | {"inner": "INNER"}).replace('"INNER"', inner)
    record = read_line(line.replace("ESCAPES", quotes.replace('"', "\\u0022")))
    assert (record.value, record.error) == (None, 'the key "key" occurs twice in one object')
