"""The judged pairs as Python rows, for data sets that are frozen, and the training rows made of them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from itertools import groupby
from typing import Any

from django.db import connection, transaction

from annotation.export.consensus import Rules, make_consensus
from annotation.export.kinds import USABLE, Kind
from annotation.export.tables import make_scores
from annotation.models import Project

# Texts are looked up last, so that only narrow rows are sorted.
_ROWS = """
    SELECT k.id, k.part, k.origin, t."group", k.prompt_id, t.prompt, k.position_a, k.position_b, t.a_source, t.a_text,
           b.source, b.text, k.a, k.b, k.tie, k.neither, k.mean_strength, k.p_a, k.verdict, k.is_edited,
           CASE WHEN k.origin = 'votes' OR k.origin = 'ranking' AND k.position_b = 1 THEN k.votes ELSE 0 END {scores}
      FROM (SELECT * FROM consensus ORDER BY id, part) k
     CROSS JOIN LATERAL (
        SELECT p."group", coalesce(h.messages, p.messages) AS prompt, s.name AS a_source, r.text AS a_text
          FROM annotation_prompt p, annotation_response h, annotation_response r, annotation_responsesource s
         WHERE p.id = k.prompt_id AND h.id = k.history_id AND r.id = k.response_a_id AND s.id = r.source_id
        OFFSET 0) t
      LEFT JOIN LATERAL (
        SELECT s.name AS source, r.text FROM annotation_response r, annotation_responsesource s
         WHERE r.id = k.response_b_id AND s.id = r.source_id OFFSET 0) b ON true
     ORDER BY k.id, k.part
"""
_SCORES = ", (SELECT points FROM response_scores WHERE response_id = {id})"


def judged_rows(project: Project, *, humans_only: bool = True, rules: Rules | None = None) -> Iterator[dict[str, Any]]:
    """Every judged pair of responses, in order of the comparison's id, as one moment sees them.

    `{"id", "part", "origin", "group", "prompt_id", "prompt": [messages], "a": {"source", "text"}, "b": {…} | None,
    "positions": [of a, of b], "votes": {"a", "b", "tie", "neither"}, "judgments", "mean_strength": float | None,
    "p_a": float | None, "verdict": "a" | "b" | a reason, "edited": bool}`. `origin` is "votes", "ranking" (one row for
    each two of its responses), "edit" or "rewrite" (where `b` may be missing). `judgments` counts a comparison's votes
    on its first row. Each side has "scores", a mean for each aspect, where the project has any.
    Streams through a server-side cursor: a transaction stays open until the iterator ends or is closed.
    """
    with transaction.atomic(), connection.chunked_cursor() as cursor:
        make_consensus(project, humans_only=humans_only, rules=rules)
        aspects = make_scores(project, humans_only=humans_only)
        scores = _SCORES.format(id="k.response_a_id") + _SCORES.format(id="k.response_b_id") if aspects else ""
        cursor.execute(_ROWS.format(scores=scores))
        while rows := cursor.fetchmany(1000):
            for row in rows:
                yield _row(row, aspects)


def _row(row: tuple[Any, ...], aspects: tuple[str, ...]) -> dict[str, Any]:
    a: dict[str, Any] = {"source": row[8], "text": row[9]}
    b: dict[str, Any] | None = None if row[11] is None else {"source": row[10], "text": row[11]}
    if aspects:
        a["scores"] = _named(aspects, row[21])
        if b is not None:
            b["scores"] = _named(aspects, row[22])
    return {
        "id": row[0],
        "part": row[1],
        "origin": row[2],
        "group": row[3],
        "prompt_id": row[4],
        "prompt": json.loads(row[5]),
        "positions": [row[6], row[7]],
        "a": a,
        "b": b,
        "votes": {"a": row[12], "b": row[13], "tie": row[14], "neither": row[15]},
        "mean_strength": row[16],
        "p_a": row[17],
        "verdict": row[18],
        "edited": row[19],
        "judgments": row[20],
    }


def _named(aspects: tuple[str, ...], points: list[float | None] | None) -> dict[str, float | None]:
    return dict(zip(aspects, points or [None] * len(aspects), strict=True))


def training_rows(kind: str, rows: Iterable[dict[str, Any]], *, ties: bool = False) -> Iterator[dict[str, Any]]:
    """The rows of `judged_rows` as TRL rows of one kind; the same as an exported file holds.

    Takes what older data sets hold, too. For sft, a response that several comparisons chose is given once, so pass
    all rows of a file in one call. `ties` adds pairs that people found equal or were divided over evenly to those of
    kind reward; what they say is in `p_chosen`, never below one half.
    """
    if kind in (Kind.DPO, Kind.REWARD):
        for row in rows:
            if (row["verdict"] in USABLE[Kind(kind)] and row["b"] is not None) or (ties and is_tie(row)):
                yield _pair(row)
        return
    seen: set[tuple[int, bytes]] = set()
    for _, of_comparison in groupby(rows, key=lambda row: row["id"]):
        for row, side, label in _singles(Kind(kind), list(of_comparison)):
            if kind == Kind.SFT:
                key = (row["prompt_id"], hashlib.sha256(side["text"].encode()).digest())
                if key in seen:
                    continue
                seen.add(key)
            single = {**_common(row), "completion": _said(side["text"])}
            if kind == Kind.KTO:
                single["label"] = label
            yield single | ({"scores": side["scores"]} if "scores" in side else {})


def _common(row: dict[str, Any]) -> dict[str, Any]:
    return {"id": row["id"], "group": row["group"], "group_id": row["id"], "prompt": row["prompt"]}


def is_tie(row: dict[str, Any]) -> bool:
    """Whether people were of two minds about two different texts. Equal texts and bad ones teach no order."""
    if row["b"] is None or row["a"]["text"] == row["b"]["text"]:
        return False
    return row["verdict"] == "tie" or (row["verdict"] == "no_majority" and not row["votes"]["neither"])


def _pair(row: dict[str, Any]) -> dict[str, Any]:
    votes = row["votes"]
    p_a = row["p_a"] if "p_a" in row else _share(votes)
    is_a = row["verdict"] == "a" or (row["verdict"] != "b" and p_a >= 0.5)
    chosen, rejected = ("a", "b") if is_a else ("b", "a")
    found = {
        **_common(row),
        "chosen": _said(row[chosen]["text"]),
        "rejected": _said(row[rejected]["text"]),
        "strength": abs(row["mean_strength"] or 0.0),
        "p_chosen": p_a if chosen == "a" else round(1 - p_a, 6),
        "votes": {
            "chosen": votes[chosen],
            "rejected": votes[rejected],
            "tie": votes["tie"],
            "neither": votes["neither"],
        },
    }
    if "scores" in row["a"]:
        found |= {"chosen_scores": row[chosen]["scores"], "rejected_scores": row[rejected]["scores"]}
    return found


def _share(votes: dict[str, int]) -> float:
    return round((votes["a"] + votes["tie"] / 2) / (votes["a"] + votes["b"] + votes["tie"]), 6)


def _said(text: str) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": text}]


Single = tuple[dict[str, Any], dict[str, Any], bool]
"""(row, side, whether it is desirable)"""


def _singles(kind: Kind, rows: list[dict[str, Any]]) -> Iterator[Single]:
    """The single responses that the rows of one comparison give."""
    ranked = [row for row in rows if row.get("origin") == "ranking"]
    if ranked:
        yield from _ranked_singles(kind, ranked)
    written: set[int] = set()
    for row in rows:
        origin, verdict = row.get("origin", "votes"), row["verdict"]
        if verdict not in USABLE[kind] or origin == "ranking":
            continue
        if origin != "votes":
            # An edited response is in two pairs.
            if row["part"] // 2 not in written:
                yield row, row["a"], True
            written.add(row["part"] // 2)
        elif kind == Kind.KTO:
            for side in ("a", "b"):
                yield row, row[side], verdict == side
        elif not row.get("edited"):
            yield row, row[verdict], True


def _ranked_singles(kind: Kind, rows: list[dict[str, Any]]) -> Iterator[Single]:
    """In content order: what won more pairs than it lost, or the reverse; for sft what won and lost to nothing."""
    sides: dict[int, dict[str, Any]] = {}
    won: dict[int, int] = {}
    lost: dict[int, int] = {}
    for row in rows:
        for position, side in zip(row["positions"], ("a", "b"), strict=True):
            other = "b" if side == "a" else "a"
            sides[position] = row[side]
            won[position] = won.get(position, 0) + (row["verdict"] == side)
            lost[position] = lost.get(position, 0) + (row["verdict"] == other)
    is_unacceptable = all(row["verdict"] == "neither" for row in rows)
    for position in sorted(sides):
        if kind == Kind.SFT:
            if won[position] and not lost[position]:
                yield rows[0], sides[position], True
        elif won[position] != lost[position] or is_unacceptable:
            yield rows[0], sides[position], won[position] > lost[position]
