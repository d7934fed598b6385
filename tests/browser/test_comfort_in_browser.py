"""What makes hours of comparing bearable, and what two tabs, a double click or the back button do to it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from axe_playwright_python.sync_playwright import Axe
from django.db.models import F
from playwright.sync_api import Page, expect

from annotation import services
from annotation.models import Assignment, Comparison, Flag, Judgment, Project, Response, RewriteCause
from annotation.protocol import Protocol
from annotation.services.projects import edit_guidelines
from tests.browser.comparing import checked, current, press_and_move
from tests.browser.conftest import PASSWORD, until
from tests.factories import make_comparison, make_project, make_user

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.django_db(transaction=True)]
COMPARE = "/projects/helpful/compare/"
Open = Callable[..., Page]
RULES = {"runOnly": {"type": "tag", "values": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]}}


def wait_for_tops(page: Page, condition: str) -> None:
    """Wait until the scroll positions of the texts, `tops`, are so."""
    tops = "[...document.querySelectorAll('.panel-text')].map(text => text.scrollTop)"
    page.wait_for_function(f"() => {{ const tops = {tops}; return {condition}; }}")


def make_work(*pairs: tuple[str, str], protocol: Protocol | None = None) -> Project:
    project = make_project("helpful", members=[make_user("ann", password=PASSWORD)])
    Project.objects.update(protocol=(protocol or Protocol()).to_json())
    for a, b in pairs or [(f"First answer {number}.", f"Second {number}, quite another.") for number in range(5)]:
        make_comparison(project, a_text=a, b_text=b)
    Comparison.objects.update(queue_key=F("pk"))
    return project


def faults(page: Page) -> list[str]:
    found = Axe().run(page, options=RULES).response["violations"]
    return [f"{fault['id']}: {fault['nodes'][0]['html'][:200]}" for fault in found]


def differences(page: Page) -> list[str]:
    return page.evaluate("[...CSS.highlights.get('difference') ?? []].map(String)")


def test_keys_can_be_changed_and_never_fire_while_somebody_writes(open_page: Open) -> None:
    make_work()
    page = open_page(COMPARE, user="ann")
    first = current(page)
    page.keyboard.press("?")
    dialog = page.locator("#keys")
    assert not faults(page)

    def change(label: str, key: str) -> None:
        dialog.get_by_role("button", name=f"Change the key for: {label}").click()
        page.keyboard.press(key)

    change("A better", "s")
    expect(dialog.get_by_role("alert")).to_contain_text("“S” already means “Skip")
    change("A better", "F5")
    expect(dialog.get_by_role("alert")).to_contain_text("“F5” cannot be used here")
    change("A better", "a")
    change("Write a note", "2")  # free by now
    expect(dialog.get_by_role("alert")).to_be_empty()
    page.keyboard.press("Escape")
    page.reload()
    expect(page.locator("[data-verdict='-2'] kbd")).to_have_text("A")
    page.keyboard.press("2")
    expect(page.locator("#note")).to_be_focused()
    page.keyboard.type("a2zs?")
    page.keyboard.press("Control+a")
    for modified in ("Control+3", "Alt+3", "Meta+3"):
        page.keyboard.press(modified)
    page.keyboard.press("Escape")
    # An input method that composes a character presses keys that are no keys.
    page.evaluate(
        """document.body.dispatchEvent(
          new KeyboardEvent("keydown", { key: "3", code: "Digit3", isComposing: true, bubbles: true }))"""
    )
    assert (current(page), checked(page)) == (first, None)
    page.keyboard.press("a")
    assert checked(page) == "-2"
    press_and_move(page, "Enter")
    until(page, lambda: Judgment.objects.exists())
    assert (Judgment.objects.get().note, abs(Judgment.objects.get().strength or 0)) == ("a2zs?", 2)

    page.keyboard.press("?")
    dialog.get_by_role("button", name="All keys as they were").click()
    page.keyboard.press("Escape")
    press_and_move(page, "2")
    shown = current(page)
    page.keyboard.press("?")
    dialog.get_by_role("button", name="中文").press("Enter")
    expect(page.locator("html")).to_have_attribute("lang", "zh-hans")
    assert current(page) == shown  # the same one, still held


def test_texts_scroll_together_differ_in_marked_words_and_are_copied_as_written(open_page: Open) -> None:
    alike = "A line about **sorting** a list.\n\n" * 80
    make_work((alike + "The end.", alike + "This end is 2 words longer."), ("Short.", "Quite another text here."))
    page = open_page("/healthz", user="ann", permissions=["clipboard-read", "clipboard-write"])
    page.goto(COMPARE)
    page.wait_for_function(
        "() => CSS.highlights.get('difference')"
    )  # so alike that it is marked without being asked for
    assert {"The", "This"} <= set(differences(page))
    page.keyboard.press("d")
    assert not differences(page)
    page.keyboard.press("d")
    assert differences(page)

    page.locator(".panel-text").first.hover()
    page.mouse.wheel(0, 100_000)
    wait_for_tops(page, "tops.every(top => top > 500)")
    page.keyboard.press("l")
    page.mouse.wheel(0, -100_000)
    wait_for_tops(page, "tops[0] === 0 && tops[1] > 500")
    page.keyboard.press("l")

    page.get_by_label("Copy response B").click()
    expect(page.locator("#toasts")).to_contain_text("B is copied as it was written.")
    copied = page.evaluate("navigator.clipboard.readText()")
    assert copied == Response.objects.get(text=copied).text and "**sorting**" in copied

    page.keyboard.press("?")
    size = "getComputedStyle(document.querySelector('[data-response] p')).fontSize"
    before = page.evaluate(size)
    page.locator("[data-text-size][value='4']").check()
    page.keyboard.press("Escape")
    assert page.evaluate(size) > before
    page.reload()
    assert page.evaluate(size) > before
    press_and_move(page, "4")
    page.wait_for_timeout(200)  # the marks of the one before would be here by now
    assert not differences(page)


def test_the_words_that_differ_are_the_fewest_in_any_two_texts(open_page: Open) -> None:
    make_work()
    page = open_page(COMPARE, user="ann")
    problem = page.evaluate(
        """async () => {
          const { diff, splitWords } = await import("app/diff");
          let seed = 7;
          const random = (below) => (seed = (seed * 1103515245 + 12345) & 0x7fffffff) % below;
          const longest = (a, b) => {
            const table = Array.from({ length: a.length + 1 }, () => Array(b.length + 1).fill(0));
            for (let i = a.length - 1; i >= 0; i--)
              for (let j = b.length - 1; j >= 0; j--)
                table[i][j] = a[i] === b[j] ? table[i + 1][j + 1] + 1 : Math.max(table[i + 1][j], table[i][j + 1]);
            return table[0][0];
          };
          const rebuilt = (a, b, runs) => {
            let [i, j, same] = [0, 0, 0];
            for (const run of [...runs, { a: [a.length, a.length], b: [b.length, b.length] }]) {
              for (; i < run.a[0]; i++, j++, same++) if (a[i] !== b[j]) return -1;
              if (j !== run.b[0]) return -2;
              [i, j] = [run.a[1], run.b[1]];
            }
            return same;
          };
          for (let round = 0; round < 500; round++) {
            const letters = 1 + random(5);
            const words = () => Array.from({ length: random(18) }, () => `w${random(letters)}`);
            const [a, b] = [words(), words()];
            if (rebuilt(a, b, diff(a, b)) !== longest(a, b)) return JSON.stringify([a, b, diff(a, b)]);
          }
          // Long and hostile ones: bounded, and still a true account of both.
          const many = (count, kinds) => Array.from({ length: count }, () => `w${random(kinds)}`);
          for (const [a, b] of [[many(30000, 9), many(30000, 9)], [many(30000, 1e6), many(20000, 1e6)]])
            if (rebuilt(a, b, diff(a, b)) < 0) return "long";
          const texts = splitWords("Hello, 数学 wörld 😀 don't").map((word) => word.text);
          return texts.join("|") === "Hello|,|数|学|wörld|😀|don|'|t" ? "" : texts.join("|");
        }"""
    )
    assert problem == ""


def test_skips_flags_and_changed_guidelines(open_page: Open) -> None:
    project = make_work()
    edit_guidelines(project, "Be kind.", None)
    page = open_page(COMPARE, user="ann")
    first = current(page)
    page.keyboard.press("g")
    expect(page.locator("#guidelines")).to_contain_text("Be kind.")
    page.keyboard.press("Escape")
    page.keyboard.press("f")
    assert not faults(page)
    page.keyboard.press("4")
    expect(page.locator("#toasts")).to_contain_text("Flagged.")
    until(page, lambda: Flag.objects.filter(reason="names_model").exists())
    assert current(page) == first and checked(page) is None
    page.keyboard.press("s")
    press_and_move(page, "1")
    until(page, lambda: Assignment.objects.filter(skip_reason="language").exists())

    edit_guidelines(project, "Be **strict**.", None)
    press_and_move(page, "3")
    notice = page.locator("#notices")
    expect(notice).to_contain_text("The guidelines changed.")
    notice.get_by_role("button", name="Read them").click()
    expect(page.locator("#guidelines strong")).to_have_text("strict")
    page.keyboard.press("Escape")
    expect(notice).to_be_empty()
    press_and_move(page, "4")
    until(page, lambda: Judgment.objects.count() == 2)
    assert list(Judgment.objects.order_by("pk").values_list("guideline_version", flat=True)) == [1, 2]


def test_a_draft_outlives_a_reload_and_is_gone_once_it_is_saved(open_page: Open) -> None:
    make_work(protocol=Protocol(chips=("clear", "short")))
    page = open_page(COMPARE, user="ann")
    page.keyboard.press("w")
    page.keyboard.press("n")
    page.keyboard.type("half a th")
    page.reload()
    expect(page.locator("#note")).to_have_value("half a th")
    expect(page.get_by_label("short")).to_be_checked()
    page.locator("#note").focus()
    page.keyboard.press("End")
    page.keyboard.type("ought")
    page.keyboard.press("Escape")
    page.keyboard.press("6")
    press_and_move(page, "Enter")
    expect(page.locator("#note")).to_be_empty()
    until(page, lambda: Judgment.objects.filter(note="half a thought", chips=["short"]).exists())
    assert not page.evaluate("Object.keys(localStorage).filter(key => key.startsWith('touchstone.draft'))")


def test_two_tabs_a_double_click_and_the_back_button(open_page: Open) -> None:
    make_work()
    page = open_page(COMPARE, user="ann")
    other = page.context.new_page()
    other.goto(COMPARE)
    expect(other.locator("#stage .comparison")).to_be_visible()
    first = current(page)
    assert current(other) == first
    press_and_move(page, "2")
    expect(other.locator("#toasts")).to_contain_text("You judged that one in another tab.")
    assert current(other) == current(page) != first
    until(page, lambda: Judgment.objects.count() == 1)
    other.close()

    # Both halves of a double click are over before a person sees the next pair.
    second = current(page)
    page.get_by_label("B better", exact=True).dblclick()
    page.wait_for_function("id => document.querySelector('#stage .comparison').dataset.assignment !== id", arg=second)
    third = current(page)
    until(page, lambda: Judgment.objects.count() == 2)
    assert checked(page) is None
    page.evaluate(
        "document.body.dispatchEvent(new KeyboardEvent('keydown', {key: '5', code: 'Digit5', bubbles: true}))"
    )
    page.evaluate(
        "document.body.dispatchEvent(new KeyboardEvent('keydown', {key: '5', code: 'Digit5', bubbles: true}))"
    )
    page.wait_for_function("id => document.querySelector('#stage .comparison')?.dataset.assignment !== id", arg=third)
    until(page, lambda: Judgment.objects.count() >= 3)

    page.goto("/")
    page.go_back()
    expect(page.locator("#stage .comparison")).to_be_visible()
    judged = set(map(str, Judgment.objects.values_list("assignment__public_id", flat=True)))
    assert current(page) not in judged
    assert Judgment.objects.count() == 3


def test_right_to_left_text_stands_right_and_200_kb_hold_up_no_key(open_page: Open) -> None:
    mixed = "مرحبا **بالعالم** و `code` هنا\n\nAn English line.\n\n- שלום\n- עולם"
    make_work(
        (mixed, "中文 😀 混排 English عربي"), ("word " * 40_000, "| a |\n|---|\n" + "| $x$ |\n" * 3_000), ("a", "b")
    )
    page = open_page(COMPARE, user="ann")
    arabic = page.locator("[data-response] p", has_text="مرحبا")
    assert page.evaluate("element => getComputedStyle(element).direction", arabic.element_handle()) == "rtl"
    english = page.locator("[data-response] p", has_text="An English")
    assert page.evaluate("element => getComputedStyle(element).direction", english.element_handle()) == "ltr"
    hebrew = page.locator("[data-response] ul")
    assert page.evaluate("element => getComputedStyle(element).direction", hebrew.element_handle()) == "rtl"
    box, panel = arabic.bounding_box(), page.locator(".panel-text", has=arabic).bounding_box()
    code = arabic.locator("code").bounding_box()
    assert box and panel and code and box["x"] < code["x"] < box["x"] + box["width"]
    press_and_move(page, "4")
    expect(page.locator(".panel", has_text="word word").locator(".panel-head")).to_contain_text("40000 words")
    assert page.evaluate("document.documentElement.scrollWidth") <= 1440
    page.keyboard.press("d")
    expect(page.locator("#toasts")).to_contain_text("too few words in common")
    page.keyboard.press("j")
    wait_for_tops(page, "tops.some(top => top > 0)")
    press_and_move(page, "2")
    until(page, lambda: Judgment.objects.count() == 2)


def test_whoever_was_taken_off_the_project_keeps_the_vote_and_is_told(open_page: Open) -> None:
    project = make_work()
    page = open_page(COMPARE, user="ann")
    project.members.clear()
    press_and_move(page, "3")
    until(page, lambda: Judgment.objects.count() == 1)
    page.keyboard.press("5")
    expect(page.get_by_role("heading", name="Nothing left")).to_be_visible()
    until(page, lambda: Judgment.objects.count() == 2)
    page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
    expect(page.locator("[data-end-text]")).to_contain_text("You are no longer in this project.")


def test_a_response_is_written_where_none_was_good(open_page: Open) -> None:
    project = make_work(("The *first*.", "The other."), ("One.", "Two."), protocol=Protocol(rewrite_neither=True))
    for comparison in project.comparisons.all():
        services.queue_rewrite(comparison.pk, cause=RewriteCause.NEITHER)
    page = open_page("/projects/helpful/rewrite/", user="ann")
    assert not faults(page)
    page.locator("#text").fill("My own words.")
    page.keyboard.press("Escape")
    page.keyboard.press("1" if "first" in page.locator("[data-source='0']").inner_text() else "2")
    page.get_by_role("link", name="Start from").click()
    expect(page.locator("#text")).to_have_value("The *first*.")
    page.locator("#toasts").get_by_role("button", name="Undo").click()
    expect(page.locator("#text")).to_have_value("My own words.")
    page.locator("#text").focus()
    page.keyboard.press("Escape")
    page.keyboard.press("1" if "first" in page.locator("[data-source='0']").inner_text() else "2")
    page.get_by_role("link", name="Start from").click()
    page.keyboard.press("Control+End")
    page.keyboard.type(" And a second.")
    expect(page.locator("[data-changes] ins")).to_have_text("And a second.")
    page.reload()
    expect(page.locator("#text")).to_have_value("The *first*. And a second.")
    page.locator("#text").focus()
    page.keyboard.press("Control+Enter")
    expect(page.locator(".notice")).to_contain_text("Your response is saved.")
    page.wait_for_load_state()  # the text is there before the keys are
    written = Response.objects.get(source__kind="person")
    assert written.text == "The *first*. And a second."
    page.keyboard.press("x")
    page.keyboard.press("2")
    expect(page.get_by_role("heading", name="Nothing to rewrite for now")).to_be_visible()
    assert not faults(page)
