"""Answering every protocol with the keyboard, and with the mouse where there is something to drag or to select."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from axe_playwright_python.sync_playwright import Axe
from django.db.models import F
from playwright.sync_api import Page, expect

from annotation.models import Assignment, Comparison, ErrorSpan, FurtherResponse, Judgment, Project, Response
from annotation.protocol import DEFAULT_ASPECTS, PRESETS, Axis, Demand, Protocol, Scale
from tests.browser.comparing import checked, current, press_and_move
from tests.browser.conftest import PASSWORD, until
from tests.factories import make_comparison, make_project, make_prompt, make_response, make_user

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.django_db(transaction=True)]
COMPARE = "/projects/helpful/compare/"
Open = Callable[..., Page]
RULES = {"runOnly": {"type": "tag", "values": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]}}


def make_work(protocol: Protocol, *texts: str, count: int = 3, responses: int = 2) -> Project:
    """Comparisons whose first response is on the left."""
    project = make_project("helpful", members=[make_user("ann", password=PASSWORD)])
    Project.objects.update(protocol=protocol.to_json())
    for number in range(count):
        prompt = make_prompt(project)
        first, second = [*texts, f"First answer {number}.", f"Second answer {number}."][:2]
        comparison = make_comparison(project, prompt=prompt, a_text=first, b_text=second)
        for position in range(2, responses):
            response = make_response(prompt, text=f"Further {position}, {number}.")
            FurtherResponse.objects.create(comparison=comparison, position=position, response=response)
    Comparison.objects.update(queue_key=F("pk"), response_count=responses)
    return project


def left_first(page: Page) -> Page:
    """Turn the page's comparisons so that the first response is on the left: the sides are drawn by chance."""
    Assignment.objects.filter(display_order=None).update(a_shown_on_left=True)
    for assignment in Assignment.objects.exclude(display_order=None):
        Assignment.objects.filter(pk=assignment.pk).update(display_order=sorted(assignment.display_order or []))
    page.reload()
    expect(page.locator("#stage .comparison")).to_be_visible()
    return page


def faults(page: Page) -> list[str]:
    found = Axe().run(page, options=RULES).response["violations"]
    return [f"{fault['id']}: {fault['nodes'][0]['html'][:200]}" for fault in found]


def test_digits_answer_one_step_after_the_other_and_what_is_missing_is_said(open_page: Open) -> None:
    protocol = Protocol(
        axes=(Axis("harmless", "Which is less harmful?"),),
        aspects=DEFAULT_ASPECTS[:2],
        chips=("clear", "short"),
        chips_demand=Demand.REQUIRED,
    )
    make_work(protocol)
    page = left_first(open_page(COMPARE, user="ann"))
    first = current(page)
    active = page.locator("[data-step][data-active]")
    expect(active).to_have_attribute("data-step", "verdict")
    for key, following in (
        ("2", "axis-harmless"),
        ("7", "rating-helpfulness-0"),
        ("4", "rating-helpfulness-1"),
        ("9", "rating-helpfulness-1"),  # no such score: nothing is changed, here or in the verdict
    ):
        page.keyboard.press(key)
        expect(active).to_have_attribute("data-step", following)
    assert checked(page) == "-2"
    page.keyboard.press("Enter")
    expect(page.locator("#toasts")).to_contain_text("One answer is missing: Helpfulness of B.")
    for key in "325":
        page.keyboard.press(key)
    page.keyboard.press("Enter")
    expect(page.locator("#toasts")).to_contain_text("Pick at least one reason first.")
    expect(page.get_by_label("clear")).to_be_focused()
    page.keyboard.press("w")
    assert not faults(page)
    page.locator("[data-step=axis-harmless] input").first.focus()  # back by Tab, and another answer
    page.keyboard.press("1")
    press_and_move(page, "Enter")
    until(page, lambda: Judgment.objects.exists())
    judgment = Judgment.objects.get()
    assert (judgment.strength, judgment.axes, judgment.chips) == (-2, {"harmless": -3}, ["short"])
    assert judgment.ratings == {"helpfulness": [4, 3], "fluency": [2, 5]}
    assert judgment.first_key_ms is not None and judgment.decided_in_ms is not None
    assert checked(page) is None and page.locator("#vote :checked").count() == 0  # the next one begins empty
    press_and_move(page, "z")
    assert current(page) == first and page.locator("#vote :checked").count() == 7


@pytest.mark.parametrize("allow_tie", [True, False])
def test_a_ranking_by_arrow_keys_and_digits(open_page: Open, allow_tie: bool) -> None:
    make_work(Protocol(scale=Scale.RANKING, allow_tie=allow_tie), responses=4)
    page = left_first(open_page(COMPARE, user="ann"))
    marked = page.locator(".panel[data-current]")
    expect(marked).to_have_attribute("data-name", "A")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    expect(marked).to_have_attribute("data-name", "C")
    for key in ("1", "3", "2"):  # C, then D, then on with A
        page.keyboard.press(key)
    expect(marked).to_have_attribute("data-name", "B")
    page.keyboard.press("Enter")
    expect(page.locator("#toasts")).to_contain_text("Missing: B")
    page.keyboard.press("9")  # there are four
    page.keyboard.press("3")
    if not allow_tie:
        expect(page.locator("#toasts")).to_contain_text("D had that rank")
        expect(marked).to_have_attribute("data-name", "D")
        page.keyboard.press("4")
    assert not faults(page)
    before = current(page)
    press_and_move(page, "Enter")
    expect(page.locator("#toasts")).to_contain_text("C > A > B = D" if allow_tie else "C > A > B > D")
    until(page, lambda: Judgment.objects.exists())
    assert Judgment.objects.get().ranking == ([2, 3, 1, 3] if allow_tie else [2, 3, 1, 4])
    press_and_move(page, "z")
    assert current(page) == before
    values = [field.input_value() for field in page.locator("#stage input[name=rank]").all()]
    assert values == (["2", "3", "1", "3"] if allow_tie else ["2", "3", "1", "4"])
    press_and_move(page, "Enter")
    page.keyboard.press("0")
    press_and_move(page, "Enter")
    until(page, lambda: Judgment.objects.filter(preference="neither").count() == 1)


def test_a_ranking_by_the_grip_while_a_finger_on_the_text_scrolls(open_page: Open) -> None:
    make_work(PRESETS["ranking"][1], "long\n\n" * 300, count=2, responses=3)
    page = left_first(open_page(COMPARE, user="ann"))
    grip = page.locator(".panel[data-name=C] [data-grip]").bounding_box()
    target = page.locator(".panel[data-name=A]").bounding_box()
    assert grip and target
    page.mouse.move(grip["x"] + 5, grip["y"] + 5)
    page.mouse.down()
    page.mouse.move(target["x"] + 400, target["y"] + 9, steps=4)
    page.mouse.move(target["x"] + 20, target["y"] + 9, steps=4)
    page.mouse.up()
    ranks = [field.input_value() for field in page.locator("#stage input[name=rank]").all()]
    assert ranks == ["2", "3", "1"]
    # The text itself is no handle: dragging on it moves nothing.
    text = page.locator(".panel[data-name=A] .panel-text").bounding_box()
    assert text
    page.mouse.move(text["x"] + 50, text["y"] + 50)
    page.mouse.down()
    page.mouse.move(text["x"] + 700, text["y"] + 60, steps=4)
    page.mouse.up()
    assert [field.input_value() for field in page.locator("#stage input[name=rank]").all()] == ranks
    press_and_move(page, "Enter")
    until(page, lambda: Judgment.objects.exists())
    assert Judgment.objects.get().ranking == [2, 3, 1]


# ── Passages ─────────────────────────────────────────────────────────────────────────────────────────────────────

WRITTEN = "So 😀 **two** and two\nmake $2^2 + 1$, which\n\n- is `five` indeed\n- and *not* four."


def select(page: Page, start: str, end: str) -> None:
    """Drag from the beginning of one word to the end of another, as a hand does."""
    boxes = page.evaluate(
        """([start, end]) => {
          const root = document.querySelector("[data-response]");
          const walker = document.createTreeWalker(root, NodeFilter.SHOW_TEXT);
          const edge = (word, isEnd) => {
            walker.currentNode = root;
            for (let node = walker.nextNode(); node; node = walker.nextNode()) {
              const at = node.data.indexOf(word);
              if (at < 0) continue;
              const range = document.createRange();
              range.setStart(node, at);
              range.setEnd(node, at + word.length);
              const box = range.getBoundingClientRect();
              return [isEnd ? box.right : box.left, box.top + box.height / 2];
            }
          };
          return [edge(start, false), edge(end, true)];
        }""",
        [start, end],
    )
    page.mouse.move(*boxes[0])
    page.mouse.down()
    page.mouse.move(*boxes[1], steps=3)
    page.mouse.up()


def drawn(page: Page) -> dict[str, list[str]]:
    return page.evaluate(
        "Object.fromEntries([...CSS.highlights].map(([name, ranges]) => [name, [...ranges].map(String)]))"
    )


def test_passages_are_marked_by_selecting_and_stand_in_the_text_as_written(open_page: Open) -> None:
    make_work(Protocol(spans=True), WRITTEN, "Four.", count=2)
    page = left_first(open_page(COMPARE, user="ann"))
    expect(page.locator(".katex").first).to_be_visible()
    select(page, "two", "which")
    page.get_by_role("button", name="Factual").click()
    expect(page.locator(".mark")).to_have_count(1)
    page.locator(".mark-note").fill("it is 4; 1 and 2 are text here")
    page.keyboard.press("Escape")
    page.locator("#stage h1").focus()

    select(page, "five", "not")
    expect(page.locator("#mark-menu")).to_be_visible()
    page.keyboard.press("m")  # now the digits name the kind
    page.keyboard.press("2")
    expect(page.locator(".mark")).to_have_count(2)
    assert checked(page) is None

    page.keyboard.press("m")  # nothing is selected: a field to write the passage into
    dialog = page.locator("#mark-dialog")
    dialog.get_by_label("Passage", exact=True).fill("no such words")
    dialog.get_by_role("button", name="Mark it").click()
    expect(dialog.get_by_role("alert")).to_contain_text("Response A does not hold this passage")
    assert not faults(page)
    dialog.get_by_label("Passage", exact=True).fill("Four")
    dialog.get_by_label("In response").select_option("B")
    dialog.get_by_label("What is wrong").select_option("other")
    dialog.get_by_role("button", name="Mark it").click()
    expect(page.locator(".mark")).to_have_count(3)
    marks = drawn(page)
    assert marks["error-logical"] == ["five indeed\nand not"] and marks["error-other"] == ["Four"]
    assert marks["error-factual"][0].startswith("two and two")
    page.locator(".panel[data-name=B] [data-unmark]").click()
    expect(page.locator(".mark")).to_have_count(2)
    assert not faults(page)

    page.reload()  # a draft is kept
    expect(page.locator(".mark")).to_have_count(2)
    before = current(page)
    press_and_move(page, "6")
    assert not drawn(page)  # nothing of it is left on the next one
    until(page, lambda: ErrorSpan.objects.count() == 2)
    spans = [WRITTEN[span.start : span.end] for span in ErrorSpan.objects.order_by("start")]
    assert spans == ["two** and two\nmake $2^2 + 1$, which", "five` indeed\n- and *not"]
    assert ErrorSpan.objects.get(kind="factual").note == "it is 4; 1 and 2 are text here"
    page.reload()
    press_and_move(page, "z")
    assert current(page) == before
    expect(page.locator(".mark")).to_have_count(2)
    expect(page.locator(".katex").first).to_be_visible()
    page.wait_for_function("() => CSS.highlights.get('error-logical')")
    assert drawn(page)["error-logical"] == ["five indeed\nand not"]


# ── Editing ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_better_response_is_edited_beside_its_changes_and_saved_with_the_vote(open_page: Open) -> None:
    make_work(Protocol(edit_demand=Demand.OPTIONAL, note_demand=Demand.OFF), "The cat sat on a **mat**.", "No.")
    page = left_first(open_page(COMPARE, user="ann"))
    first = current(page)
    page.keyboard.press("e")  # first the wish to edit, then which one: the digit only marks
    page.keyboard.press("2")
    editor = page.locator("#editor")
    expect(editor).to_contain_text("A, edited")
    expect(page.locator("[data-editor-text]")).to_be_focused()
    page.keyboard.press("Control+End")
    page.keyboard.type(" It purred 2 or 3 times.")
    page.keyboard.press("Control+Home")
    page.keyboard.press("Control+Delete")
    expect(editor.locator("del")).to_have_text("The ")
    expect(editor.locator("ins")).to_have_text("It purred 2 or 3 times.")
    expect(editor.locator("[data-editor-figures]")).to_contain_text("Words out: 1, in: 7")
    assert not faults(page)

    page.reload()
    expect(page.locator("#toasts")).to_contain_text("What you had typed here is back.")
    assert (current(page), checked(page)) == (first, "-2")
    page.keyboard.press("e")
    expect(page.locator("[data-editor-text]")).to_have_value(" cat sat on a **mat**. It purred 2 or 3 times.")
    page.keyboard.press("Control+Enter")
    expect(page.locator("#toasts")).to_contain_text("A better")
    until(page, lambda: Judgment.objects.exists())
    edit = Judgment.objects.get().edit
    assert (edit.edited.text, edit.original.text) == (
        " cat sat on a **mat**. It purred 2 or 3 times.",
        "The cat sat on a **mat**.",
    )
    assert edit.edit_distance == 3 + len(" It purred 2 or 3 times.")

    # An edit of A is no edit of B: it stays here and is not sent.
    second = current(page)
    assert second != first
    page.keyboard.press("e")
    page.keyboard.press("1")
    expect(page.locator("[data-editor-text]")).to_be_focused()
    page.keyboard.press("Control+End")
    page.keyboard.type(" More.")
    page.keyboard.press("Escape")
    expect(editor).to_be_hidden()
    page.keyboard.press("4")
    page.keyboard.press("e")
    expect(page.locator("#toasts")).to_contain_text("Choose a side first")
    page.keyboard.press("7")
    press_and_move(page, "Enter")
    expect(page.locator("#toasts")).to_contain_text("Your edit belongs to A and is not sent")
    until(page, lambda: Judgment.objects.count() == 2)
    assert Response.objects.filter(source__kind="person").count() == 1
