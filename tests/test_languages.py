"""Two languages: the catalogue is whole, fits the code, and the pages speak it."""

from __future__ import annotations

import gettext as python_gettext
import html
import re
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import pytest
from babel.messages.catalog import Catalog, Message
from babel.messages.extract import extract_from_file
from babel.messages.pofile import read_po
from django.template import Context, Engine, Node, Template
from django.template.base import FilterExpression
from django.template.loader import render_to_string
from django.templatetags.i18n import BlockTranslateNode, TranslateNode
from django.test import Client
from django.utils.translation import override

from annotation.protocol import Protocol
from rlhf.forms import OptionsForm, option_help
from rlhf.option_words import HELP
from rlhf.options import OPTIONS
from rlhf.services.checkpoints import register_base_checkpoint
from tests.factories import make_comparison, make_project, make_user
from tests.pages.training import make_job

ROOT = Path(__file__).parent.parent
CATALOGUE = ROOT / "config" / "locale" / "zh_Hans" / "LC_MESSAGES" / "django.po"
PLACEHOLDER = re.compile(r"%\(\w+\)[a-z]|%%|\{\w*\}|</?\w+[^>]*>")
CHINESE = re.compile(r"[\u4e00-\u9fff]")
KEYWORDS = {
    **dict.fromkeys(["_", "gettext", "gettext_lazy", "gettext_noop"], (1,)),
    **dict.fromkeys(["ngettext", "ngettext_lazy"], (1, 2)),
    **dict.fromkeys(["pgettext", "pgettext_lazy"], ((1, "c"), 2)),
    **dict.fromkeys(["npgettext", "npgettext_lazy"], ((1, "c"), 2, 3)),
}


@pytest.fixture(scope="module")
def catalogue() -> Catalog:
    with CATALOGUE.open("rb") as file:
        return read_po(file, locale="zh_Hans")


def strings(value: object) -> list[str]:
    return [value] if isinstance(value, str) else [str(one) for one in value]  # type: ignore[attr-defined]


def messages(catalogue: Catalog) -> Iterator[Message]:
    return (message for message in catalogue if message.id)


# ── The catalogue ────────────────────────────────────────────────────────────────────────────────────────────────


def test_every_entry_is_translated_and_none_is_guessed(catalogue: Catalog) -> None:
    empty = [message.id for message in messages(catalogue) if not all(strings(message.string or ""))]
    assert not empty, "translate these in django.po (docs/translating.md)"
    assert not [message.id for message in messages(catalogue) if message.fuzzy]
    assert "nplurals=1" in CATALOGUE.read_text()


def test_every_placeholder_and_tag_is_kept(catalogue: Catalog) -> None:
    lost = []
    for message in messages(catalogue):
        # The plural names every placeholder; the only form that Chinese has must, too.
        wanted = set(PLACEHOLDER.findall(strings(message.id)[-1]))
        lost += [(message.id, text) for text in strings(message.string) if set(PLACEHOLDER.findall(text)) != wanted]
    assert not lost


def test_the_compiled_catalogue_is_what_the_text_says(catalogue: Catalog) -> None:
    with CATALOGUE.with_suffix(".mo").open("rb") as file:
        compiled = python_gettext.GNUTranslations(file)
    stale = []
    for message in messages(catalogue):
        ids = strings(message.id)
        if len(ids) > 1:
            got = compiled.ngettext(ids[0], ids[1], 2)
        else:
            got = compiled.pgettext(message.context, ids[0]) if message.context else compiled.gettext(ids[0])
        if got != strings(message.string)[0]:
            stale.append(message.id)
    assert not stale, "run manage.py compilemessages"


def test_every_marked_string_is_in_the_catalogue(catalogue: Catalog) -> None:
    known = {(message.context or None, strings(message.id)[0]) for message in messages(catalogue)}
    marked = set(marked_in_templates()) | set(marked_in_code())
    assert len(marked) > 1000  # so that an extraction that finds nothing fails
    assert not marked - known, "run manage.py makemessages and translate them (docs/translating.md)"


def marked_in_code() -> Iterator[tuple[str | None, str]]:
    for package in ("annotation", "config", "rlhf"):
        for path in (ROOT / package).rglob("*.py"):
            for _line, message, _comments, context in extract_from_file("python", path, keywords=KEYWORDS):
                yield context, strings(message)[0]


def marked_in_templates() -> Iterator[tuple[str | None, str]]:
    """What `translate`, `blocktranslate` and `_("…")` name, read from the templates as Django compiles them."""
    engine = Engine.get_default()
    for path in (ROOT / "templates").rglob("*.html"):
        source = path.read_text()
        for node in every_node(engine.from_string(source)):
            if isinstance(node, TranslateNode):
                text = node.filter_expression.var
                if not isinstance(text, str):
                    continue  # a variable's value is marked where it is made
                yield literal(node.message_context), text.replace("%", "%%")
            elif isinstance(node, BlockTranslateNode):
                yield literal(node.message_context), node.render_token_list(node.singular)[0]
        for tag in re.findall(r"{[{%].*?[}%]}", source):
            yield from ((None, text.replace("%", "%%")) for text in re.findall(r'_\("([^"]*)"\)', tag))


def literal(expression: FilterExpression | None) -> str | None:
    return None if expression is None else str(expression.resolve(Context()))


def every_node(template: Template) -> Iterator[Node]:
    return iter(template.nodelist.get_nodes_by_type(Node))


def test_what_the_training_options_say_is_marked() -> None:
    """rlhf/options is standard library only, so rlhf/option_words.py marks copies of its sentences."""
    said = {text for method in OPTIONS for text in option_help(method).values()}
    assert said == set(HELP)
    for method in OPTIONS:
        assert OptionsForm(method).fields.keys() == {option.name for option in fields(OPTIONS[method])}


# ── The pages ────────────────────────────────────────────────────────────────────────────────────────────────────


def read(client: Client, address: str) -> str:
    answer = client.get(address)
    assert answer.status_code == 200, address
    return html.unescape(answer.content.decode())


def switch(client: Client, language: str) -> None:
    answer = client.post("/language/", {"language": language, "next": "/"})
    assert (answer.status_code, answer["Location"]) == (302, "/")


@pytest.mark.django_db
@pytest.mark.usefixtures("data_dir")
def test_the_switch_turns_every_page_into_chinese_and_back(tiny_model: Path) -> None:
    staff = make_user("mara", is_staff=True)
    job = make_job(register_base_checkpoint("starter", tiny_model))
    snapshot, project = job.snapshot, job.snapshot.project
    client = Client()
    client.force_login(staff)
    said = {  # English, Chinese
        "/": ("Sign out", "退出"),
        "/projects/": ("Make the project", "创建项目"),
        f"/projects/{project.slug}/": ("Which answers do people prefer?", "大家更喜欢哪些回答？"),
        f"/projects/{project.slug}/settings/": ("Settings", "设置"),
        f"/projects/{project.slug}/quality/": ("Quality", "质量"),
        f"/data-sets/{snapshot.pk}/": ("What people decided", "大家的决定"),
        "/training/new/": ("What to learn from", "从什么学习"),
        f"/training/{job.pk}/": ("queued", "排队中"),
        f"/training/{job.pk}/?tab=options": ("How it runs", "如何运行"),
        "/checkpoints/": ("Checkpoints", "检查点"),
    }
    for address, (english, chinese) in said.items():
        text = read(client, address)
        assert '<html lang="en">' in text
        assert english in text, address
        assert chinese not in text, address
    switch(client, "zh-hans")
    for address, (english, chinese) in said.items():
        text = read(client, address)
        assert '<html lang="zh-hans">' in text
        assert chinese in text, address
        # Every page's title and the bar speak, not only the words above.
        assert f">{english}<" not in text, address
    assert "此地址没有内容" in client.get("/nothing-here/").content.decode()
    switch(client, "en")
    assert "Sign out" in read(client, "/")


@pytest.mark.django_db
def test_people_judge_in_chinese() -> None:
    user = make_user("ana")
    project = make_project(members=[user])
    make_comparison(project)
    client = Client()
    switch(client, "zh-hans")  # before signing in: the choice is kept in a cookie
    assert "登录" in read(client, "/login/")
    client.force_login(user)
    text = read(client, f"/projects/{project.slug}/compare/")
    labels = re.findall(r'data-hotkey-label="([^"]*)"', text)
    assert Protocol.of(project).scale
    assert labels
    assert all(CHINESE.search(label) for label in labels), labels
    page_data = re.search(r'<script id="page-data" type="application/json">(.*?)</script>', text, re.DOTALL)
    assert page_data is not None
    words = re.findall(r'"((?:\\u[0-9a-fA-F]{4})+)', page_data[1])
    assert len(words) > 20  # what the scripts say


@pytest.mark.parametrize(("name", "sentence"), [("500.html", "我们这边出了问题"), ("503.html", "无法连接数据库")])
def test_the_pages_for_failures_are_chinese(name: str, sentence: str) -> None:
    with override("zh-hans"):
        text = render_to_string(name)
    assert '<html lang="zh-hans">' in text
    assert sentence in text
