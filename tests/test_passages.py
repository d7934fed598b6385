"""Passages: what was selected on the screen is found in the text as it was written, however that is rendered."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from annotation.passages import align, find_passage, shown_range, shown_text, source_range

CASES = [
    ("# Title\n\nSome **bold** and *it*, and `code x`.\n\n- a\n- b\n", "bold and it", "bold** and *it"),
    ("see [the docs](http://a.example/x_(y)) a b", "a b", "a b"),
    ("see [the docs](http://a.example/x) for more", "docs for", "docs](http://a.example/x) for"),
    ("before\n\n```python\ndef f():\n    return '<b>'\n```\nafter", "f():\n    return", "f():\n    return"),
    ("    indented\n    code", "indented\ncode", "indented\n    code"),
    ("x &lt; y &amp; z &copy; 2020", "< y & z © 2020", "&lt; y &amp; z &copy; 2020"),
    (r"five \* six \_ seven", "* six _", r"* six \_"),
    ("数学 **重点** 是 $x^2$ 的和 😀 表情 *好*。", "重点 是 x^2 的和 😀 表情 好", "重点** 是 $x^2$ 的和 😀 表情 *好"),
    ("\\[\n\\begin{align}a\\end{align}\n\\]\nok", "\\begin{align}a\\end{align}", "\\begin{align}a\\end{align}"),
    ("so \\(x_1 + x_2\\) holds", "x_1 + x_2 holds", "x_1 + x_2\\) holds"),
    ("a ![cat](http://x.example/p.png) b", "http", "![cat](http://x.example/p.png)"),
    ("| a | b |\n|---|---|\n| cc | dd |", "cc\ndd", "cc | dd"),
    ("1. one\n2. two\n   more", "two\nmore", "two\n   more"),
    ("> quoted\n> twice", "quoted\ntwice", "quoted\n> twice"),
    ("<https://a.example/b> and on", "https://a.example/b and", "https://a.example/b> and"),
    ("<script>x</script> is text", "</script> is", "</script> is"),
    ("one\r\ntwo", "one\ntwo", "one\r\ntwo"),
    ("العربية **مهم** جدا", "مهم جدا", "مهم** جدا"),
    ("# Only *source* has marks", "Only *source*", "Only *source*"),  # copied from the source
    ("spread  over\nlines", "spread over lines", "spread  over\nlines"),  # typed with other white space
]


@pytest.mark.parametrize(("text", "quote", "source"), CASES)
def test_a_passage_is_found_in_the_source_and_shown_again(text: str, quote: str, source: str) -> None:
    found = find_passage(text, quote)
    assert found is not None and text[slice(*found)] == source
    shown = shown_text(text)
    again = shown_range(shown, text, *found)
    assert again is not None and source_range(shown, text, *again) is not None


def test_of_equal_passages_the_selected_one_is_found() -> None:
    text = "the *cat* and the *cat* and the *cat*"
    shown = shown_text(text)
    starts = [i for i in range(len(shown)) if shown.startswith("cat", i)]
    found = [find_passage(text, "cat", near=start) for start in starts]
    assert found == [(5, 8), (19, 22), (33, 36)]
    assert [shown_range(shown, text, *place)[0] for place in found if place] == starts  # type: ignore[index]


@pytest.mark.parametrize("quote", ["", "   ", "not there"])
def test_what_is_not_there_is_not_found(quote: str) -> None:
    assert find_passage("some *text*", quote) is None


words = st.integers(0, 10**6).map(lambda number: f"w{number}w")


@st.composite
def documents(draw: st.DrawFn) -> tuple[str, list[str]]:
    """Markdown made of words that occur once each, and those words in order."""
    drawn = iter(draw(st.lists(words, min_size=60, max_size=60, unique=True)))
    used: list[str] = []

    def take(count: int = 1) -> str:
        taken = [next(drawn) for _ in range(count)]
        used.extend(taken)
        return " ".join(taken)

    inline = {
        "plain": lambda: take(2),
        "bold": lambda: f"**{take(2)}**",
        "italic": lambda: f"*{take()}*",
        "code": lambda: f"`{take(2)}`",
        "link": lambda: f"[{take()}](http://w.example/w?w=1 'w')",
        "formula": lambda: f"$\\{take()}$",
        "brackets": lambda: f"\\({take()}\\)",
        "entity": lambda: f"&lt;{take()}&gt;",
        "escape": lambda: f"\\*{take()}\\*",
        "emoji": lambda: f"😀{take()}",
    }

    def line() -> str:
        return " ".join(
            inline[kind]() for kind in draw(st.lists(st.sampled_from(sorted(inline)), min_size=1, max_size=2))
        )

    blocks = {
        "paragraph": line,
        "heading": lambda: f"## {line()}",
        "list": lambda: f"- {line()}\n- {line()}",
        "numbers": lambda: f"1. {line()}\n2. {line()}",
        "quote": lambda: f"> {line()}\n> {line()}",
        "fence": lambda: f"```python\n{take(2)} = 1\n\n{take()}\n```",
        "table": lambda: f"| {take()} | {take()} |\n|---|---|\n| {take()} | {take()} |",
        "display": lambda: f"$$\n{take()} + {take()}\n$$",
        "rule": lambda: "---",
    }
    parts = [blocks[kind]() for kind in draw(st.lists(st.sampled_from(sorted(blocks)), min_size=1, max_size=5))]
    return "\n\n".join(parts), used


@settings(max_examples=100, deadline=None)
@given(documents(), st.data())
def test_a_selection_from_word_to_word_gives_the_source_from_word_to_word(
    document: tuple[str, list[str]], data: st.DataObject
) -> None:
    text, used = document
    if not used:
        return
    first = data.draw(st.integers(0, len(used) - 1))
    last = data.draw(st.integers(first, len(used) - 1))
    shown = shown_text(text)
    start, end = shown.index(used[first]), shown.index(used[last]) + len(used[last])
    found = find_passage(text, shown[start:end], near=start)
    assert found is not None
    passage = text[slice(*found)]
    assert passage.startswith(used[first]) and passage.endswith(used[last])
    assert shown_range(shown, text, *found) == (start, end)


@settings(max_examples=300, deadline=None)
@given(st.text(alphabet=st.sampled_from(list("ab *_`#[]()!<>&;|-\\$\n\t😀中")), max_size=120), st.data())
def test_in_any_text_the_passage_holds_the_selected_characters_in_order(text: str, data: st.DataObject) -> None:
    shown = shown_text(text)
    blocks = list(align(shown, text))
    for one, other in itertools.pairwise(blocks):
        assert one.shown + one.shown_length <= other.shown and one.source + one.source_length <= other.source
    if not shown:
        return
    start = data.draw(st.integers(0, len(shown) - 1))
    end = data.draw(st.integers(start + 1, len(shown)))
    found = source_range(shown, text, start, end)
    if found is None:
        return
    assert 0 <= found[0] < found[1] <= len(text)
    passage = text[slice(*found)]
    at = 0
    for block in blocks:
        if (
            block.shown_length == block.source_length
            and start <= block.shown
            and block.shown + block.shown_length <= end
        ):
            for character in shown[block.shown : block.shown + block.shown_length]:
                at = passage.index(character, at) + 1


@pytest.mark.parametrize("text", ["&#60;x*" * 6_000, "![a](b)" * 3_000, "\\*" * 20_000, "**a**`b` " * 5_000])
def test_hostile_text_is_aligned_whole(text: str) -> None:
    shown = shown_text(text)
    end = len(shown) - 1
    assert source_range(shown, text, end - 1, end) is not None
