"""Formats in which one record holds several rows: oasst's trees and sharegpt's conversations."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from annotation.importers import oasst, rows, sharegpt
from annotation.importers.rows import UnusableRowError
from annotation.models import Comparison, Conversation, Judgment, Prompt, Rating
from tests.importing import import_lines, reasons, run_import


def reply(name: str, *replies: dict[str, Any], role: str = "assistant", **more: Any) -> dict[str, Any]:
    return {"message_id": name, "text": f"text {name}", "role": role, "lang": "de", "replies": list(replies), **more}


def oasst_tree(**changes: Any) -> dict[str, Any]:
    """A ranking of three with a tie at the root, and a pair below its worst reply."""
    follow_up = reply(
        "u2",
        reply("d", rank=0, synthetic=True, model_name="chip20b"),
        reply("e", rank=1),
        reply("f", labels={"quality": {"value": 0.75, "count": 3}, "spam": {"value": "?"}}),
        role="prompter",
    )
    root = reply(
        "u1",
        reply("c", rank=1),
        reply("a", rank=0, labels={"quality": {"value": 1.0, "count": 3}}),
        reply("b", follow_up, rank=1),
        reply("gone", rank=3, deleted=True),
        role="prompter",
    )
    return {"message_tree_id": "t1", "tree_state": "ready_for_export", "prompt": root, **changes}


@pytest.mark.django_db
def test_tree_gives_a_comparison_at_each_ranked_node(tmp_path: Path) -> None:
    done = import_lines(tmp_path, [oasst_tree()])
    assert (done["format"], done["rows"], done["comparisons"], done["single_responses"]) == ("oasst", 3, 2, 1)
    assert (done["judgments"], done["ratings"], done["prompts"], done["skipped"]) == (2, 2, 2, [])
    first, second = Comparison.objects.order_by("external_id")
    assert set(Prompt.objects.values_list("group", "lang")) == {("oasst-t1", "de")}
    assert [first.response_a.text, first.response_b.text] == ["text a", "text b"]
    assert [further.response.text for further in first.further_responses.all()] == ["text c"]
    assert (first.response_count, first.judgments.get().ranking) == (3, [1, 2, 2])
    assert [message["content"] for message in second.prompt.messages] == ["text u1", "text b", "text u2"]
    assert (second.response_a.source.name, second.judgments.get().preference) == ("chip20b", "a")
    assert Rating.objects.get(response__text="text f").value == 0.75


@pytest.mark.parametrize(
    ("root", "reason"),
    [
        (reply("u", role="prompter"), "no reply of an assistant that was ranked or labelled"),
        (reply("u", reply("a", role="robot"), role="prompter"), 'message a has a role that is neither "prompter"'),
        (reply("u", {"message_id": "a", "text": 7}, role="prompter"), '"text of message a" is 7, not text'),
        (reply("u", role="prompter") | {"replies": {}}, '"replies" of message u is not a list'),
        ("text", "a message of the tree is not an object"),
    ],
)
def test_unusable_tree_is_refused_whole(root: Any, reason: str) -> None:
    with pytest.raises(UnusableRowError, match=reason):
        oasst.parse(oasst_tree(prompt=root))


def test_what_one_model_says_twice_is_ranked_once() -> None:
    same = {"text": "same"}
    tree = reply("u", reply("a", rank=2) | same, reply("b", rank=1) | same, reply("c", rank=0), role="prompter")
    (row,) = oasst.parse(oasst_tree(prompt=tree))
    assert [side.text for side in row.sides] == ["same", "text c"]
    assert row.verdicts[0].preference == "b"


def test_deep_trees_and_long_talks_are_refused_before_they_fill_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    node = reply("end", role="prompter")
    for number in range(oasst.MAX_DEPTH):
        node = reply(f"n{number}", node, role="prompter" if number % 2 else "assistant")
    with pytest.raises(UnusableRowError, match="deeper than 200 messages"):
        oasst.parse(oasst_tree(prompt=node))
    with pytest.raises(UnusableRowError, match="501 turns: at most 500"):
        sharegpt.parse(talk_row(conversations=talk(*["x"] * 1002)))
    monkeypatch.setattr(rows, "MAX_REPEATED_CHARACTERS", 30)
    with pytest.raises(UnusableRowError, match="histories of its turns"):
        sharegpt.parse(talk_row(conversations=talk(*["x" * 20] * 6)))
    with pytest.raises(UnusableRowError, match="histories of its turns"):
        oasst.parse(oasst_tree())


# ── sharegpt ─────────────────────────────────────────────────────────────────────────────────────────────────────


def talk(*texts: str) -> list[dict[str, str]]:
    return [{"from": "gpt" if index % 2 else "human", "value": text} for index, text in enumerate(texts)]


def talk_row(**changes: Any) -> dict[str, Any]:
    return {"id": "talk_0", "conversations": talk("One?", "1", "Two?", "2"), **changes}


@pytest.mark.django_db
def test_conversation_can_be_rated_turn_by_turn(tmp_path: Path) -> None:
    begun_by_model = [{"from": "system", "value": "Be kind."}, *talk("One?", "1", "Two?")]
    done = import_lines(
        tmp_path,
        [
            talk_row(),
            talk_row(conversations=begun_by_model),
            talk_row(conversations=talk("One?")),
            talk_row(conversations=[{"from": "human", "value": None}]),
            talk_row(conversations=[{"from": "narrator", "value": "x"}]),
        ],
    )
    assert (done["format"], done["conversations"], done["single_responses"]) == ("sharegpt", 2, 3)
    assert reasons(done) == [
        (3, "it holds no answer to anything that the user says"),
        (4, '"value of message 1" is null, not text'),
        (5, 'message 1 of "conversations" says by nobody known whom it is "from"'),
    ]
    assert not Judgment.objects.exists()
    first, second = Conversation.objects.order_by("id")
    assert [(turn.position, turn.kept_response.text) for turn in first.turns.all()] == [(0, "1"), (1, "2")]
    assert [message["role"] for message in first.turns.last().prompt.messages] == ["user", "assistant", "user"]
    assert [message["role"] for message in second.turns.get().prompt.messages] == ["system", "user"]


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("oasst_trees.jsonl", {"rows": 212, "comparisons": 212, "judgments": 212, "responses": 641}),
        ("sharegpt_conversations.json", {"conversations": 500, "single_responses": 1000, "responses": 1000}),
    ],
)
def test_published_files_go_in_whole(shared_data: Path, name: str, found: dict[str, int]) -> None:
    done = run_import(shared_data / "formats" / name)
    assert {key: done[key] for key in found} == found
    assert done["skipped"] == []
