"""FB-Bench: does a model mend its answer when it was wrong, and stand by it when it was right?

Li et al. 2024, arXiv 2410.09412. An item is a question, a fixed first answer and a person's feedback; the model writes
the second answer and a judge ticks the item's checklist. This module reads the authors' shapes and checks them; what
the ticks are worth is in `fb_bench_scores`.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import chain
from pathlib import Path
from typing import Any

from rapidfuzz import fuzz

WEIGHT_SLACK = 1e-6
"""How far the sum of an item's weights may be from 1, and a score outside 0 … 1."""
MAX_FIELD_CHARS = 100_000
MAX_CRITERIA = 100


class Scenario(StrEnum):
    ERROR_CORRECTION = "Error Correction"
    RESPONSE_MAINTENANCE = "Response Maintenance"

    @property
    def key(self) -> str:
        """`error_correction`, as in the printed figures."""
        return self.name.lower()


TASKS = (
    "Mathematics", "Reasoning", "Coding", "Text Extraction", "Text Error Correction", "Text Creation",
    "Knowledge Q&A", "Text Translation",
)  # fmt: skip
DEFICIENCIES = (
    "Logical Error", "Not Following Instructions", "Factual Error", "Incomplete Answer", "Unprofessional Answer",
)  # fmt: skip
FEEDBACK: dict[str, tuple[str, ...]] = {
    Scenario.ERROR_CORRECTION: (
        "Pointing Out Errors", "Simple Questioning", "Clarifying Intent", "Detailed Explanation", "Hinting Guidance",
        "Raising Objections",
    ),
    Scenario.RESPONSE_MAINTENANCE: (
        "Simple Questioning", "Misinformation", "Credibility Support", "Unreasonable Requests",
    ),
}  # fmt: skip

_TEMPERATURES = {"Knowledge Q&A": 0.1, "Text Creation": 0.7, "Text Translation": 0.7}


def temperature_of(task: str) -> float:
    """What the authors sample second answers with: 0 wherever there is one right answer."""
    return _TEMPERATURES.get(task, 0.0)


class UnusableFileError(ValueError):
    """A file that cannot be read at all; the sentence says what is wrong and where."""


class UnusableItemError(ValueError):
    """An item or judgment that does not have the shape it needs; the sentence names the field."""


@dataclass(frozen=True, slots=True)
class Criterion:
    """A weighted requirement (error correction) or, without a weight, one of several acceptable ways."""

    text: str
    weight: float | None = None


@dataclass(frozen=True, slots=True)
class Item:
    scenario: Scenario
    task: str
    sub_task: str
    query: str
    """Unique in a data set: the authors use it as the item's id."""
    first_response: str
    feedback: str
    deficiencies: tuple[str, ...]
    feedback_types: tuple[str, ...]
    checklist: tuple[Criterion, ...]
    reference: str | None = None

    @property
    def key(self) -> str:
        return hashlib.sha256(self.query.encode()).hexdigest()

    @property
    def messages(self) -> list[dict[str, str]]:
        """What the model answers: everything up to the feedback."""
        return [
            {"role": "user", "content": self.query},
            {"role": "assistant", "content": self.first_response},
            {"role": "user", "content": self.feedback},
        ]

    def as_row(self) -> dict[str, Any]:
        """The item in the authors' shape."""
        row: dict[str, Any] = {
            "bench_type": str(self.scenario),
            "task_type": self.task,
            "sub_task_type": self.sub_task,
            "user_query": self.query,
            "origin_first_response": self.first_response,
            "feedback": self.feedback,
            "error_type": list(self.deficiencies) if self.scenario == Scenario.ERROR_CORRECTION else None,
            "feedback_type": list(self.feedback_types),
        }
        if self.reference is not None:
            row["reference_second_response"] = self.reference
        row["checklist"] = [
            criterion.text if criterion.weight is None else [criterion.text, criterion.weight]
            for criterion in self.checklist
        ]
        return row


def parse_item(value: Any) -> Item:
    """An item of the authors' data set. Raises UnusableItemError."""
    if not isinstance(value, dict):
        raise UnusableItemError("it is not a JSON object")
    try:
        scenario = Scenario(str(value.get("bench_type")))
    except ValueError:
        known = " or ".join(repr(str(name)) for name in Scenario)
        raise UnusableItemError(f"bench_type: {value.get('bench_type')!r} is not {known}") from None
    feedback_types = _labels(value, "feedback_type", FEEDBACK[scenario], f"feedback of {scenario}")
    if not feedback_types:
        raise UnusableItemError("feedback_type: it is empty; name at least one kind")
    if scenario == Scenario.ERROR_CORRECTION:
        deficiencies = _labels(value, "error_type", DEFICIENCIES, "deficiency")
        if not deficiencies:
            raise UnusableItemError("error_type: it is empty; say what is wrong with the first response")
    else:
        if value.get("error_type"):
            raise UnusableItemError("error_type: in Response Maintenance nothing is wrong with the first response")
        deficiencies = ()
    reference = value.get("reference_second_response")
    if reference is not None and not isinstance(reference, str):
        raise UnusableItemError("reference_second_response: it is not a text")
    return Item(
        scenario=scenario,
        task=text_of(value, "task_type"),
        sub_task=text_of(value, "sub_task_type", may_be_empty=True),
        query=text_of(value, "user_query"),
        first_response=text_of(value, "origin_first_response"),
        feedback=text_of(value, "feedback"),
        deficiencies=deficiencies,
        feedback_types=feedback_types,
        checklist=parse_checklist(value.get("checklist"), scenario),
        reference=reference,
    )


def parse_checklist(value: Any, scenario: Scenario) -> tuple[Criterion, ...]:
    """`[[text, weight] …]` whose weights sum to 1, or `[text …]` of which one is enough. Raises UnusableItemError."""
    if not isinstance(value, list) or not value:
        raise UnusableItemError("checklist: it is not a list that holds something")
    if len(value) > MAX_CRITERIA:
        raise UnusableItemError(f"checklist: {len(value)} criteria are more than {MAX_CRITERIA}")
    criteria = tuple(_criterion(number, entry) for number, entry in enumerate(value, 1))
    texts = [criterion.text for criterion in criteria]
    if len(set(texts)) < len(texts):
        again = next(text for index, text in enumerate(texts) if text in texts[:index])
        raise UnusableItemError(f"checklist: {short(again)} stands there twice")
    weights = [criterion.weight for criterion in criteria if criterion.weight is not None]
    if weights and len(weights) < len(criteria):
        raise UnusableItemError("checklist: some criteria have a weight and some have none; give all or none one")
    if scenario == Scenario.ERROR_CORRECTION and not weights:
        raise UnusableItemError("checklist: Error Correction needs a weight for each criterion")
    if scenario == Scenario.RESPONSE_MAINTENANCE and weights:
        raise UnusableItemError("checklist: Response Maintenance lists alternatives, which have no weights")
    if weights and abs(math.fsum(weights) - 1) > WEIGHT_SLACK:
        raise UnusableItemError(f"checklist: the weights sum to {math.fsum(weights):g}, not to 1")
    return criteria


def _criterion(number: int, entry: Any) -> Criterion:
    text, weight = entry if isinstance(entry, list) and len(entry) == 2 else (entry, None)
    if not isinstance(text, str) or not text.strip():
        raise UnusableItemError(f"checklist: criterion {number} is neither a text nor [text, weight]")
    check_text(text, f"criterion {number}")
    if not isinstance(entry, list):
        return Criterion(text)
    if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 < weight <= 1:  # NaN is refused, too
        raise UnusableItemError(f"checklist: the weight of criterion {number}, {weight!r}, is not in 0 … 1")
    return Criterion(text, float(weight))


def text_of(value: dict[str, Any], field: str, *, may_be_empty: bool = False) -> str:
    text = value.get(field)
    if not isinstance(text, str) or not (may_be_empty or text.strip()):
        why = "it is missing" if text is None else "it is empty" if isinstance(text, str) else "it is not a text"
        raise UnusableItemError(f"{field}: {why}")
    check_text(text, field)
    return text


def check_text(text: str, field: str) -> None:
    if len(text) > MAX_FIELD_CHARS:
        raise UnusableItemError(f"{field}: {len(text):,} characters are more than {MAX_FIELD_CHARS:,}")
    if "\0" in text or any("\ud800" <= letter <= "\udfff" for letter in text):
        raise UnusableItemError(f"{field}: it holds a NUL or half a character, which no database keeps")


def _labels(value: dict[str, Any], field: str, known: Sequence[str], what: str) -> tuple[str, ...]:
    labels = value.get(field)
    if not isinstance(labels, list):
        raise UnusableItemError(f"{field}: it is not a list")
    for label in labels:
        if label not in known:
            raise UnusableItemError(f"{field}: {label!r} is no {what}; known: {', '.join(known)}")
    return tuple(dict.fromkeys(labels))


def short(text: str) -> str:
    return repr(text if len(text) <= 40 else f"{text[:40]}…")


# ── Files ────────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class Refusal:
    """A row that was left out, and why. `row` counts from 1: the line of JSON lines, the element of a JSON array."""

    row: int
    reason: str


@dataclass(frozen=True, slots=True)
class DataSet:
    items: tuple[Item, ...]
    refusals: tuple[Refusal, ...]
    sha256: str
    """Of the file's bytes."""


def read_dataset(path: Path) -> DataSet:
    """The items of a file in the authors' shape, and the rows that are no items. Raises UnusableFileError."""
    return parse_dataset(read_bytes(path), str(path))


def parse_dataset(content: bytes, name: str) -> DataSet:
    """The same of a file's bytes."""
    items: dict[str, Item] = {}
    refusals = []
    for row, value, error in read_rows(content, name):
        try:
            if error:
                raise UnusableItemError(error)
            item = parse_item(value)
            if item.query in items:
                raise UnusableItemError(f"user_query: {short(item.query)} stands in an earlier item, too")
        except UnusableItemError as refusal:
            refusals.append(Refusal(row, str(refusal)))
        else:
            items[item.query] = item
    if not items:
        why = f"; row {refusals[0].row}: {refusals[0].reason}" if refusals else ""
        raise UnusableFileError(f"{name} holds no FB-Bench item{why}")
    return DataSet(tuple(items.values()), tuple(refusals), hashlib.sha256(content).hexdigest())


def read_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UnusableFileError(f"{path} cannot be read: {error.strerror or error}") from None


def read_rows(content: bytes, name: str) -> Iterator[tuple[int, Any, str]]:
    """(row from 1, value, error) of a JSON array or of JSON lines; the error is empty where there is a value.

    Raises UnusableFileError where the whole is neither.
    """
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UnusableFileError(f"{name} is not UTF-8: byte {error.start}") from None
    if text.lstrip()[:1] == "[":
        try:
            values = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise UnusableFileError(f"{name} is not valid JSON: {error}") from None
        yield from ((row, value, "") for row, value in enumerate(values, 1))
        return
    for row, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            yield row, json.loads(line), ""
        except (ValueError, RecursionError) as error:
            yield row, None, f"it is not valid JSON: {error}"


# ── What a judge said ────────────────────────────────────────────────────────────────────────────────────────────

REASON_KEYS = ("评判理由", "judgement reason", "judgment reason", "reason")
RESULT_KEYS = ("评判结果", "judgement result", "judgment result", "result")
YES, NO = {"是", "yes"}, {"否", "no"}
_PARTLY = re.compile(r"部分|基本|partial|partly|half|somewhat|mostly", re.IGNORECASE)
REPETITIVE_MARK = "$REPETITIVE PATTERNS$"
REPETITIVE_JUDGEMENT = {"API fialed": REPETITIVE_MARK}  # spelt as the authors' files have it
"""What stands in place of a judgment where the judge's endpoint refused the answer for its repetitions: score 0."""
ALIKE = 90.0
"""How alike (0 … 100) an echoed criterion must be to count as the checklist's own, misspelt."""


class Failure(StrEnum):
    """Why a judgment cannot be used."""

    NOTHING = "nothing"
    PROSE = "prose"
    HALF_JSON = "half_json"
    WRONG_SHAPE = "wrong_shape"
    INVENTED_CRITERION = "invented_criterion"
    MISSING_CRITERION = "missing_criterion"
    PARTIAL_CREDIT = "partial_credit"
    OTHER_WORD = "other_word"
    NO_REASON = "no_reason"
    WEIGHT = "weight"
    REFUSED = "refused"
    UNREADABLE = "unreadable"
    NO_ANSWER = "no_answer"


class UnusableJudgmentError(UnusableItemError):
    """A judgment that gives no verdict on every criterion."""

    def __init__(self, failure: Failure, sentence: str) -> None:
        super().__init__(sentence)
        self.failure = failure


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a criterion is met. `echo` is how the judge spelt it, empty where it did so exactly."""

    is_met: bool
    reason: str = ""
    echo: str = ""


def is_repetitive(judgement: Any) -> bool:
    return isinstance(judgement, dict) and REPETITIVE_MARK in map(str, judgement.values())


def parse_judgement(value: Any, checklist: Sequence[Criterion], *, by_place: bool = False) -> tuple[Verdict, ...]:
    """A verdict for each criterion, in the checklist's order. Raises UnusableJudgmentError.

    Weights that the judge echoes are never used; one that could not be a weight still shows that it did not follow.
    by_place: take a criterion in other words by its place, as in published files, which hold older wordings.
    """
    if not isinstance(value, dict):
        raise UnusableJudgmentError(Failure.WRONG_SHAPE, "it is not a JSON object")
    if not value:
        raise UnusableJudgmentError(Failure.NOTHING, "it is empty")
    echoes = _matched(list(value), checklist, by_place=by_place)
    return tuple(
        _verdict(value[echo], criterion, "" if echo == criterion.text else echo)
        for criterion, echo in zip(checklist, echoes, strict=True)
    )


def _matched(echoes: list[str], checklist: Sequence[Criterion], *, by_place: bool) -> list[str]:
    """The judge's key for each criterion: its text, its text misspelt, or (by_place) what stands in its place."""
    found: dict[int, str] = {}
    left = dict.fromkeys(echoes)
    for index, criterion in enumerate(checklist):
        if criterion.text in left:
            found[index] = criterion.text
            del left[criterion.text]
    for index, criterion in enumerate(checklist):
        if index in found or not left:
            continue
        best = max(left, key=lambda echo: fuzz.ratio(_plain(echo), _plain(criterion.text)))
        if fuzz.ratio(_plain(best), _plain(criterion.text)) >= ALIKE:
            found[index] = best
            del left[best]
    missing = [index for index in range(len(checklist)) if index not in found]
    if by_place and len(missing) == len(left):
        found.update(zip(missing, left, strict=True))
        missing, left = [], {}
    if left:
        raise UnusableJudgmentError(
            Failure.INVENTED_CRITERION, f"it judges {short(next(iter(left)))}, which is not in the checklist"
        )
    if missing:
        raise UnusableJudgmentError(
            Failure.MISSING_CRITERION, f"it says nothing about {short(checklist[missing[0]].text)}"
        )
    return [found[index] for index in range(len(checklist))]


def _plain(text: str) -> str:
    """Without what judges lose when they copy: spaces, backslashes of formulas, wide and narrow forms."""
    return re.sub(r"[\s\\]+", "", unicodedata.normalize("NFKC", text)).casefold()


def _verdict(value: Any, criterion: Criterion, echo: str) -> Verdict:
    at = short(criterion.text)
    if not isinstance(value, dict):
        raise UnusableJudgmentError(Failure.WRONG_SHAPE, f"{at}: not an object with a reason and a result")
    result = _first(value, RESULT_KEYS)
    word = result.strip().casefold() if isinstance(result, str) else ""
    if word not in YES | NO:
        if (isinstance(result, int | float) and not isinstance(result, bool)) or _PARTLY.search(word):
            raise UnusableJudgmentError(Failure.PARTIAL_CREDIT, f"{at}: {result!r} is neither yes nor no")
        raise UnusableJudgmentError(Failure.OTHER_WORD, f"{at}: the result {short(str(result))} is neither yes nor no")
    reason = _first(value, REASON_KEYS)
    if not isinstance(reason, str) or not reason.strip():
        raise UnusableJudgmentError(Failure.NO_REASON, f"{at}: no reason is given")
    weight = value.get("weight")
    if weight is not None and (isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 < weight <= 1):
        raise UnusableJudgmentError(Failure.WEIGHT, f"{at}: the weight {weight!r} is not one")
    return Verdict(word in YES, reason, echo)


def _first(value: dict[str, Any], keys: Iterable[str]) -> Any:
    return next((value[key] for key in chain(keys) if key in value), None)


def item_score(checklist: Sequence[Criterion], met: Sequence[bool]) -> float:
    """0 … 1: the weights of what is met; without weights, 1 as soon as one way is taken.

    Raises ValueError for a sum outside 0 … 1 by more than rounding explains.
    """
    score = 0.0
    for criterion, is_met in zip(checklist, met, strict=True):
        if is_met:
            if criterion.weight is None:
                return 1.0
            score += criterion.weight
    if not -WEIGHT_SLACK <= score <= 1 + WEIGHT_SLACK:
        raise ValueError(f"an item's score is {score}, outside 0 … 1")
    return min(max(score, 0.0), 1.0)
