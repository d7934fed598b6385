"""Text that a model or a stranger wrote, made safe to show.

Two lines of defence: the parser escapes all HTML, and nh3 lets through only the tags and classes made here. Nothing is
fetched from another host: an image becomes its description and address.
"""

from __future__ import annotations

import html
import re
from collections.abc import Callable, MutableMapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import nh3
from django.utils.safestring import SafeString, mark_safe
from markdown_it import MarkdownIt
from markdown_it.renderer import RendererHTML
from markdown_it.rules_block import StateBlock
from markdown_it.rules_core import StateCore
from markdown_it.rules_inline import StateInline
from markdown_it.token import Token
from markdown_it.utils import OptionsDict
from mdit_py_plugins.dollarmath import dollarmath_plugin
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import get_lexer_by_name
from pygments.token import STANDARD_TYPES
from pygments.util import ClassNotFound

# Longer texts are shown as they were written: parsing them would hold a web thread for seconds.
MAX_PARSED_CHARS = 50_000
MAX_BRACKETS = 4_000  # openers of links and images that nothing closes cost their number squared
LONG_HTML = 20_000
MAX_HIGHLIGHTED_CHARS = 20_000
MAX_CACHED_CHARS = 20_000

_TAGS = {
    *("h1", "h2", "h3", "h4", "h5", "h6", "p", "br", "hr", "blockquote", "ul", "ol", "li", "pre", "code"),
    *("strong", "em", "s", "a", "span", "table", "thead", "tbody", "tr", "th", "td"),
}
_MATH = {"math", "math-display"}
_CLASSES = {"span": {name for name in STANDARD_TYPES.values() if name} | _MATH | {"image-text"}}
_BLOCKS = {"p", "h1", "h2", "h3", "h4", "h5", "h6", "blockquote", "ul", "ol", "pre", "table"}
_ATTRIBUTES = {tag: {"dir"} for tag in _BLOCKS} | {
    "a": {"href", "title"},
    "ol": {"start", "dir"},
    "pre": {"tabindex", "dir"},
}
# Chinese and Japanese are written without spaces: each of their characters counts.
_UNSPACED = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
_WORD = re.compile(rf"[{_UNSPACED}]|[^\s{_UNSPACED}]+")
_FORMATTER = HtmlFormatter(nowrap=True)
_CLEANER = nh3.Cleaner(
    tags=_TAGS,
    attributes=_ATTRIBUTES,
    allowed_classes=_CLASSES,
    url_schemes={"http", "https", "mailto"},
    link_rel="noopener nofollow noreferrer",
    set_tag_attribute_values={"a": {"target": "_blank"}},
)


@dataclass(frozen=True, slots=True)
class Rendered:
    """A text ready for a template."""

    html: SafeString
    words: int
    is_long: bool
    """Whether a browser should lay out only what is on the screen."""


def render_markdown(text: str) -> Rendered:
    """Safe HTML of Markdown with code and LaTeX, the same for the same text, kept for the next reader."""
    return _render_cached(text) if len(text) <= MAX_CACHED_CHARS else _render(text)


def _render(text: str) -> Rendered:
    is_parsed = len(text) <= MAX_PARSED_CHARS and text.count("[") <= MAX_BRACKETS
    dirty = _parser.render(text) if is_parsed else _as_written(text)
    clean = _CLEANER.clean(dirty)
    return Rendered(mark_safe(clean), len(_WORD.findall(text)), len(clean) > LONG_HTML)


# Cut where a line, or else a word, ends: a browser lays out only the pieces that are on the screen.
_PIECE = re.compile(r"(?s).{1,3000}\n+|.{1,3000}(?:$|(?<=\s)|(?<=\S{200}))")


def _as_written(text: str) -> str:
    return "".join(f'<pre dir="auto">{html.escape(piece)}</pre>' for piece in _PIECE.findall(text))


_render_cached = lru_cache(maxsize=512)(_render)


# ── Rendering rules ──────────────────────────────────────────────────────────────────────────────────────────────


def _fence(
    self: RendererHTML, tokens: Sequence[Token], index: int, options: OptionsDict, env: MutableMapping[str, Any]
) -> str:
    token = tokens[index]
    language = token.info.split(maxsplit=1)[0] if token.info.strip() else ""
    # Wide code scrolls, and what scrolls must be reachable by keyboard.
    return f'<pre tabindex="0"><code>{_highlight(token.content, language)}</code></pre>\n'


def _highlight(code: str, language: str) -> str:
    if not language or len(code) > MAX_HIGHLIGHTED_CHARS:
        return html.escape(code)
    try:
        lexer = get_lexer_by_name(language, stripnl=False, ensurenl=False)
    except ClassNotFound:
        return html.escape(code)
    return highlight(code, lexer, _FORMATTER)


def _image(
    self: RendererHTML, tokens: Sequence[Token], index: int, options: OptionsDict, env: MutableMapping[str, Any]
) -> str:
    token = tokens[index]
    alt = self.renderInlineAsText(token.children or [], options, env)
    return (
        f'<span class="image-text">[image: {html.escape(alt)}] {html.escape(str(token.attrs.get("src", "")))}</span>'
    )


def _math(kind: str) -> Callable[..., str]:
    # A span also for displayed formulas: a div would end the paragraph that it stands in.
    def render(self: RendererHTML, tokens: Sequence[Token], index: int, *_: Any) -> str:
        return f'<span class="{kind}">{html.escape(tokens[index].content.strip())}</span>'

    return render


# ── LaTeX in \( … \), \[ … \] and \begin{…}, as most models write it; in linear time, also where nothing closes ────

_DISPLAY_OPENER = re.compile(
    r"\\\[|\\begin\{((?:equation|align|alignat|gather|multline|eqnarray|[pbBvV]?matrix)\*?)\}"
)


def _find_closer(state: StateBlock | StateInline, closer: str, start: int) -> int:
    """Where `closer` next stands, or −1; remembers a miss, because many openers without a closer must not cost n²."""
    misses = state.env.setdefault("missed_closers", set())
    if (state.src, closer) in misses:
        return -1
    found = state.src.find(closer, start)
    if found < 0:
        misses.add((state.src, closer))
    return found


def _inline_brackets(state: StateInline, silent: bool) -> bool:
    opener = state.src[state.pos : state.pos + 2]
    if opener not in ("\\(", "\\["):
        return False
    end = _find_closer(state, "\\)" if opener == "\\(" else "\\]", state.pos + 2)
    if end < 0 or end + 2 > state.posMax:
        return False
    if not silent:
        token = state.push("math_inline" if opener == "\\(" else "math_block", "math", 0)
        token.content = state.src[state.pos + 2 : end]
    state.pos = end + 2
    return True


def _display_block(state: StateBlock, start_line: int, end_line: int, silent: bool) -> bool:
    start = state.bMarks[start_line] + state.tShift[start_line]
    opener = _DISPLAY_OPENER.match(state.src, start)
    if opener is None or state.is_code_block(start_line):
        return False
    environment = opener[1]
    closer = f"\\end{{{environment}}}" if environment else "\\]"
    end = _find_closer(state, closer, opener.end())
    if end < 0:
        return False
    after = end + len(closer)
    line = start_line
    while line < end_line and state.eMarks[line] < after:
        line += 1
    # More words after the closer make this a paragraph, which the inline rule handles.
    if line >= end_line or state.src[after : state.eMarks[line]].strip(" .,;"):
        return False
    if silent:
        return True
    token = state.push("math_block", "math", 0)
    token.content = state.src[start:after] if environment else state.src[opener.end() : end]
    token.block = True
    token.map = [start_line, line + 1]
    state.line = line + 1
    return True


def _set_directions(state: StateCore) -> None:
    """Every block on its own: an answer may change its script from one paragraph to the next."""
    for token in state.tokens:
        if token.level == 0 and token.nesting == 1:
            token.attrSet("dir", "auto")


def _make_parser() -> MarkdownIt:
    parser = MarkdownIt("js-default", {"html": False, "breaks": True})
    dollarmath_plugin(parser, allow_labels=False, allow_space=False, allow_digits=False, double_inline=True)
    parser.inline.ruler.before("escape", "math_brackets", _inline_brackets)
    parser.block.ruler.before("fence", "math_display", _display_block, {"alt": ["paragraph"]})
    parser.core.ruler.push("directions", _set_directions)
    parser.add_render_rule("fence", _fence)
    parser.add_render_rule("image", _image)
    parser.add_render_rule("math_inline", _math("math"))
    for name in ("math_inline_double", "math_block"):
        parser.add_render_rule(name, _math("math-display"))
    return parser


_parser = _make_parser()
