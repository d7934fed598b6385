"""A conversation as a person meets it: by keyboard alone, live, through reloads and lost connections, and blind."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import Error as PlaywrightError
from playwright.sync_api import Page, Response, expect

from annotation.conversations.writing import wait_for_writers
from annotation.models import Conversation, Edit, Judgment, ResponseSource
from annotation.protocol import DEFAULT_ASPECTS, Demand
from annotation.services.projects import edit_guidelines
from tests.browser.conftest import until
from tests.chat_server import ChatServer, Exchange, answer_at_once, chat_server
from tests.factories import make_annotator
from tests.talks import last_turn, make_talk, make_talk_project, write

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.django_db(transaction=True)]
Open = Callable[..., Page]


@pytest.fixture
def server() -> Iterator[ChatServer]:
    with chat_server() as server:
        yield server
        assert wait_for_writers(20)


# The browser's own log keeps no body that a script reads as a stream, so the script's reading is overheard.
OVERHEAR = """
const plain = window.fetch;
window.fetch = async (...request) => {
  const response = await plain(...request);
  const [forPage, forTest] = response.body?.tee() ?? [null, null];
  const copy = new Response(forPage, response);
  if (forTest) (async () => {
    for await (const text of forTest.pipeThrough(new TextDecoderStream())) window.overheard(text);
  })().catch(() => {});
  return copy;
};
"""


class Ear:
    """Every byte that the pages get from now on: addresses, headers and bodies."""

    def __init__(self, page: Page) -> None:
        self.heard = ""
        self.waiting: list[Response] = []
        page.on("response", lambda response: self.waiting.append(response))
        page.expose_function("overheard", self.hear)
        page.add_init_script(OVERHEAR)

    def hear(self, text: str) -> None:
        self.heard += text

    def take_in(self) -> None:
        """Call before a page is left: what it was made of is forgotten with it."""
        while self.waiting:
            response = self.waiting.pop(0)
            self.hear(f"{response.url} {response.all_headers()}\n")
            with contextlib.suppress(PlaywrightError):  # a redirect, or a stream
                self.hear(response.text())


def test_a_whole_conversation_by_keyboard(server: ChatServer, open_page: Open) -> None:
    go_on = threading.Event()

    def reply(exchange: Exchange) -> None:
        exchange.start()
        exchange.say(f"Half of *{exchange.body['seed']}*")
        assert go_on.wait(60)
        exchange.say(", and the rest.")
        exchange.complete()

    server.reply = reply
    make_talk_project("talks", url=server.url, person="ann")
    page = open_page("/", user="ann")
    ear = Ear(page)
    page.get_by_role("link", name="Converse").focus()
    page.keyboard.press("Enter")
    page.get_by_label("Start with a message").focus()
    ear.take_in()
    page.keyboard.type("What is 6 × 7?")
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")

    for name in "AB":
        expect(page.locator(f'[data-side="{name}"] [data-arriving]')).to_contain_text("Half of *")
    page.reload()  # in the middle of both streams
    for name in "AB":
        expect(page.locator(f'[data-side="{name}"] [data-arriving]')).to_contain_text("Half of *")
    go_on.set()
    expect(page.locator('[data-status="done"] em')).to_have_count(2)
    assert len(server.requests) == 2
    talk = Conversation.objects.get()

    page.keyboard.press("6")
    expect(page.locator(".talk-outcome")).to_contain_text("B goes on")
    page.keyboard.press("2")
    expect(page.locator(".talk-outcome")).to_contain_text("A goes on")
    assert Judgment.objects.get(superseded_at=None).decided_in_ms is not None
    page.keyboard.press("e")
    expect(page.locator("#own-text")).to_be_focused()
    page.keyboard.press("Control+a")
    page.keyboard.type("It is 42.")
    page.keyboard.press("Escape")
    for key in "ctp":
        page.keyboard.press(key)
    page.keyboard.press("Enter")
    expect(page.locator("#message")).to_be_focused()
    page.keyboard.type("Not 42, and 7 keys are text here.")
    ear.take_in()
    page.reload()  # drafts are kept
    expect(page.locator("#own-text")).to_have_value("It is 42.")
    expect(page.locator("#message")).to_have_value("Not 42, and 7 keys are text here.")
    assert page.locator(":checked").evaluate_all("boxes => boxes.map((box) => box.value)") == [
        "-2",
        "error_correction",
        "logical_error",
        "pointing_out_errors",
    ]
    page.locator("#message").focus()
    page.context.set_offline(True)
    page.keyboard.press("Control+Enter")
    expect(page.locator("[data-refusal]")).to_contain_text("There is no connection")
    page.context.set_offline(False)
    page.keyboard.press("Control+Enter")
    expect(page.locator("#turn-1 .talk-bubble")).to_contain_text("Not 42")
    expect(page.locator("#turn-0 .talk-said")).to_contain_text("edited by you · you said: A better")
    expect(page.locator("#message")).to_have_value("")
    expect(page.locator('#turn-1 [data-status="done"]')).to_have_count(2)

    page.keyboard.press("0")
    expect(page.locator("#own-text")).to_be_focused()
    page.keyboard.type("My own response.")
    page.keyboard.press("Control+Enter")
    expect(page.locator("[data-refusal]")).to_contain_text("Say what your message is")
    page.keyboard.press("Escape")
    page.keyboard.press("c")
    page.keyboard.press("p")
    page.keyboard.press("r")  # what the other scenario does not allow is dropped
    page.keyboard.press("t")
    page.keyboard.press("Enter")
    page.keyboard.type("My teacher says 41.")
    page.keyboard.press("Control+Enter")
    expect(page.locator("#turn-2 .talk-bubble")).to_contain_text("My teacher")
    expect(page.locator('#turn-2 [data-status="done"]')).to_have_count(2)
    ear.take_in()
    page.keyboard.press("f")
    expect(page.get_by_text("This conversation has ended")).to_be_visible()

    first, second, third = talk.turns.all()
    assert [turn.kept_response.text for turn in (first, second)] == ["It is 42.", "My own response."]
    assert Edit.objects.get().edited == first.kept_response
    assert (second.scenario, second.deficiency_types, second.feedback_types) == (
        "response_maintenance",
        [],
        ["misinformation"],
    )
    assert [message["content"] for message in third.prompt.messages] == [
        "What is 6 × 7?",
        "It is 42.",
        "Not 42, and 7 keys are text here.",
        "My own response.",
        "My teacher says 41.",
    ]
    ear.take_in()
    assert "My teacher says 41." in ear.heard, "the fragments were heard"
    # A stream that broke is read again, so a panel may come twice.
    assert ear.heard.count('{"side": "A", "html": ') >= 3, "and the streams"
    assert '"text": "Half of *' in ear.heard, "also one that a reload cut"
    for source in ResponseSource.objects.filter(kind="model"):
        assert source.name not in ear.heard and source.served_model not in ear.heard
    assert server.url not in ear.heard


def test_early_votes_broken_streams_and_a_phone(server: ChatServer, open_page: Open) -> None:
    project = make_talk_project("talks", url=server.url, person="ann", max_turns=1)
    talk = make_talk(project, annotator=make_annotator(project.members.get()))
    left = last_turn(talk).sides.get(position=0 if last_turn(talk).a_shown_on_left else 1)
    go_on = threading.Event()

    def reply(exchange: Exchange) -> None:
        exchange.start()
        exchange.say(f"Half of {exchange.body['seed']}")
        assert go_on.wait(60)
        if exchange.body["seed"] == left.seed:
            exchange.drop()
        else:
            exchange.complete()

    server.reply = reply
    page = open_page(f"/conversations/{talk.public_id}/", user="ann", viewport={"width": 390, "height": 844})
    expect(page.locator("[data-arriving]").first).to_contain_text("Half of")
    page.locator('.pick:has([value="-3"])').click()
    expect(page.locator(".talk-outcome")).to_contain_text("counts as given early")
    go_on.set()
    expect(page.locator(".talk-trouble")).to_contain_text("The response broke off.")
    server.reply = answer_at_once
    page.get_by_role("button", name="Try again").click()
    expect(page.locator('[data-side="A"][data-status="done"]')).to_contain_text(f"Answer {left.seed}")
    expect(page.locator(".talk-outcome")).to_contain_text("A goes on")
    judgment = Judgment.objects.get()
    assert judgment.is_partial and abs(judgment.strength or 0) == 3
    expect(page.get_by_text("This is the last turn here.")).to_be_visible()
    expect(page.locator("#message")).to_be_hidden()
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "nothing hangs over the edge"
    assert page.evaluate("document.documentElement.scrollHeight <= innerHeight"), "the composer stays at the bottom"

    other = make_talk(project, annotator=talk.annotator)
    write(other, "Response a.", "Response b.")
    page.goto(f"/conversations/{other.public_id}/")
    page.locator('.pick:has([value="0"])').click()
    expect(page.locator(".talk-outcome")).to_contain_text("chance has kept")
    until(page, lambda: last_turn(other).kept_at_random)

    edit_guidelines(project, "Be **strict**.", None)
    page.locator('.pick:has([value="-3"])').click()
    notice = page.locator("#guidelines-changed")
    expect(notice).to_contain_text("The guidelines changed.")
    expect(notice).to_be_in_viewport()
    notice.get_by_role("button", name="Read them").click()
    expect(page.locator("#guidelines strong")).to_have_text("strict")
    expect(notice).to_have_count(0)
    page.keyboard.press("Escape")
    page.locator('.pick:has([value="3"])').click()
    said = Judgment.objects.filter(comparison__turn__conversation=other)
    until(page, lambda: said.count() == 3)
    assert list(said.order_by("pk").values_list("guideline_version", flat=True)) == [0, 0, 1]


def test_keys_of_a_conversation_can_be_changed_and_turned_off(open_page: Open) -> None:
    project = make_talk_project("talks", person="ann")
    talk = make_talk(project, annotator=make_annotator(project.members.get()))
    write(talk, "Response a.", "Response b.")
    page = open_page(f"/conversations/{talk.public_id}/", user="ann")
    page.keyboard.press("?")
    dialog = page.locator("#keys")
    dialog.get_by_role("button", name="Change the key for: A better").click()
    page.keyboard.press("x")
    page.keyboard.press("Escape")
    page.keyboard.press("x")
    expect(page.locator(".talk-outcome")).to_contain_text("A goes on")
    expect(page.locator(".pick[data-verdict='-2'] kbd")).to_have_text("X")  # on what the server drew anew, too
    page.keyboard.press("?")
    dialog.get_by_label("Turn the single keys off").check()
    page.keyboard.press("Escape")
    page.keyboard.press("6")
    page.keyboard.press("?")  # goes on working, and comes after the digit
    expect(dialog).to_be_visible()
    assert abs(Judgment.objects.get(superseded_at=None).strength or 0) == 2
    assert Judgment.objects.count() == 1


def test_what_is_optional_can_be_said_beside_a_choice(open_page: Open) -> None:
    project = make_talk_project(
        "talks", person="ann", aspects=DEFAULT_ASPECTS, aspects_demand=Demand.OPTIONAL, chips=("Too long",)
    )
    talk = make_talk(project, annotator=make_annotator(project.members.get()))
    write(talk, "Response a.", "Response b.")
    page = open_page(f"/conversations/{talk.public_id}/", user="ann")
    note = page.locator("#pick-note")
    expect(note).to_be_hidden()
    page.keyboard.press("y")
    page.get_by_role("group", name="Helpfulness A").get_by_label("4").check()
    page.get_by_label("Too long").check()
    note.fill("Both are short.")
    page.reload()
    expect(note).to_have_value("Both are short.")
    expect(page.get_by_label("Too long")).to_be_checked()
    page.keyboard.press("Escape")
    page.keyboard.press("2")  # with all this open a digit only marks
    page.keyboard.press("Enter")
    expect(page.locator(".talk-outcome")).to_contain_text("A goes on")
    judgment = Judgment.objects.get()
    assert (judgment.note, judgment.chips) == ("Both are short.", ["Too long"])
    assert set(judgment.ratings["helpfulness"]) == {4, None}
    expect(note).to_have_value("Both are short.")  # and is there to be changed, with another choice
