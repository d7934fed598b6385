"""The compare page as a person meets it: by keyboard, on a phone, without scripts, without a connection."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from django.db.models import F
from playwright.sync_api import APIResponse, Page, Route, expect

from annotation.models import Assignment, Comparison, Judgment, Project
from tests.browser.comparing import checked, current, press_and_move
from tests.browser.conftest import PASSWORD, until
from tests.factories import make_comparison, make_project, make_user

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]
COMPARE = "/projects/helpful/compare/"
Open = Callable[..., Page]


@pytest.fixture
def project() -> Project:
    project = make_project("helpful", members=[make_user("ann", password=PASSWORD)])
    for number in range(6):
        make_comparison(project, a_text=f"First answer {number}.", b_text=f"Second answer {number}.")
    # In the order in which they were made.
    Comparison.objects.update(queue_key=F("pk"))
    return project


def shown_strengths() -> list[int | None]:
    """The standing verdicts in the order of their comparisons, with the sides as they were shown."""
    return [
        judgment.strength if judgment.strength is None or judgment.assignment.a_shown_on_left else -judgment.strength
        for judgment in Judgment.objects.filter(superseded_at=None)
        .select_related("assignment")
        .order_by("comparison_id")
    ]


def tab_to(page: Page, text: str) -> None:
    for _ in range(20):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.textContent.trim()").startswith(text):
            return
    raise AssertionError(f"no {text!r} in the tab order")


def test_the_whole_way_by_keyboard_alone(project: Project, open_page: Open) -> None:
    page = open_page(COMPARE)
    page.keyboard.type("ann")
    page.keyboard.press("Tab")
    page.keyboard.type(PASSWORD)
    page.keyboard.press("Enter")
    expect(page.locator("#stage .comparison")).to_be_visible()
    page.goto("/")
    tab_to(page, "Start")
    page.keyboard.press("Enter")
    expect(page.locator("#stage .comparison")).to_be_visible()
    page.wait_for_load_state()  # the text is there before the keys are

    page.keyboard.press("?")
    help_text = page.locator("#keys")
    expect(help_text).to_be_visible()
    keys = [key.strip() for key in help_text.locator("dt").all_inner_texts()]
    assert {*"1234567", "0", "↵", "N", "S", "F", "Z", "J", "K", "L", "D", "?"} <= set(keys)
    page.keyboard.press("1")  # behind the open dialog nothing votes
    page.keyboard.press("Escape")
    expect(help_text).to_be_hidden()

    first = current(page)
    press_and_move(page, "2")
    expect(page.locator("#toasts")).to_contain_text("A better")
    expect(page.locator("#stage h1")).to_be_focused()
    page.keyboard.press("s")
    press_and_move(page, "2")  # a reason, which judges nothing
    expect(page.locator("#toasts")).to_contain_text("Skipped")
    third = current(page)
    press_and_move(page, "z")
    press_and_move(page, "z")
    assert (current(page), checked(page)) == (first, "-2")
    press_and_move(page, "7")  # corrects the first
    press_and_move(page, "4")  # judges the one that was skipped
    assert current(page) == third

    page.keyboard.press("n")
    expect(page.locator("#vote textarea")).to_be_focused()
    page.keyboard.type("1 of 2 is enough; s, z and 7 are text here")
    page.keyboard.press("Escape")
    assert (current(page), checked(page)) == (third, None)
    page.keyboard.press("6")  # with a note open a digit only marks
    assert checked(page) == "2"
    press_and_move(page, "Enter")
    for key in "31":
        press_and_move(page, key)
    page.keyboard.press("0")
    expect(page.get_by_role("heading", name="Nothing left to compare here for now")).to_be_visible()
    until(page, lambda: Judgment.objects.filter(superseded_at=None).count() == 6)
    assert shown_strengths() == [3, 0, 2, -1, -3, None]
    assert Judgment.objects.get(assignment__public_id=third).note.startswith("1 of 2 is enough")
    assert Judgment.objects.exclude(superseded_at=None).count() == 1
    assert all(judgment.decided_in_ms is not None for judgment in Judgment.objects.all())
    expect(page.locator("[data-done-today]")).to_have_text("6")
    expect(page.locator("[data-total]")).to_have_text("6")
    assert page.locator(".bar-progress").evaluate("bar => [bar.value, bar.max]") == [6, 6]

    page.keyboard.press("z")  # also from the end of the queue
    assert checked(page) == "neither"
    page.keyboard.press("Enter")  # keeps it
    expect(page.get_by_role("heading", name="Nothing left")).to_be_visible()
    assert Judgment.objects.count() == 7


def test_undo_reaches_back_before_a_reload(project: Project, open_page: Open) -> None:
    page = open_page(COMPARE, user="ann")
    ids = []
    for key in "15":
        ids.append(current(page))
        press_and_move(page, key)
    until(page, lambda: Judgment.objects.count() == 2)
    page.reload()
    press_and_move(page, "z")
    assert (current(page), checked(page)) == (ids[1], "1")
    press_and_move(page, "z")
    assert (current(page), checked(page)) == (ids[0], "-3")
    press_and_move(page, "6")
    press_and_move(page, "Enter")
    until(page, lambda: shown_strengths() == [2, 1])


def test_without_a_connection_votes_wait_survive_a_reload_and_are_saved_once(
    project: Project, open_page: Open
) -> None:
    page = open_page(COMPARE, user="ann")
    page.context.set_offline(True)
    press_and_move(page, "2")
    expect(page.locator("#pending")).to_have_text("Votes waiting to be saved: 1")
    page.keyboard.press("z")  # an unsaved vote can be undone too
    assert checked(page) == "-2"
    press_and_move(page, "3")
    page.keyboard.press("6")
    expect(page.get_by_role("heading", name="Saving your votes")).to_be_visible()
    expect(page.locator("#pending")).to_have_text("Votes waiting to be saved: 3")
    assert not Judgment.objects.exists()

    # The network is back before the server is.
    page.route("**/judgment", lambda route: route.fulfill(status=503, body="<html>"))
    page.context.set_offline(False)
    page.reload()
    expect(page.locator("#pending")).to_have_text("Votes waiting to be saved: 3")
    expect(page.get_by_role("heading", name="Saving your votes")).to_be_visible()
    assert not Judgment.objects.exists()

    page.unroute("**/judgment")
    page.evaluate("dispatchEvent(new Event('online'))")
    expect(page.locator("#stage .comparison")).to_be_visible()
    expect(page.locator("#pending")).to_be_hidden()
    until(page, lambda: shown_strengths() == [-1, 2])
    assert Judgment.objects.count() == 3
    assert not page.evaluate("Object.keys(localStorage).filter(key => key.startsWith('touchstone.vote'))")


def test_an_answer_that_is_lost_on_the_way_back_stores_the_vote_once(project: Project, open_page: Open) -> None:
    page = open_page(COMPARE, user="ann")
    lost: list[APIResponse] = []

    def lose_first_answer(route: Route) -> None:
        if lost:
            route.continue_()
            return
        lost.append(route.fetch())
        route.abort()

    page.route("**/judgment", lose_first_answer)
    press_and_move(page, "2")
    expect(page.locator("#pending")).to_be_visible()
    assert Judgment.objects.count() == 1
    page.evaluate("dispatchEvent(new Event('online'))")
    expect(page.locator("#pending")).to_be_hidden()
    assert lost and Judgment.objects.count() == 1


def test_a_tab_closed_in_the_middle_loses_nothing(project: Project, open_page: Open) -> None:
    page = open_page(COMPARE, user="ann")
    page.route("**/judgment", lambda route: route.abort())
    press_and_move(page, "7")
    expect(page.locator("#pending")).to_be_visible()
    context = page.context
    page.close()
    again = context.new_page()
    again.goto(COMPARE)
    until(again, lambda: shown_strengths() == [3])


def test_a_refused_vote_is_said_and_its_text_kept(project: Project, open_page: Open) -> None:
    page = open_page(COMPARE, user="ann")
    sentence = "this vote is stored already with another verdict"
    page.route(
        "**/judgment", lambda route: route.fulfill(status=409, content_type="text/plain; charset=utf-8", body=sentence)
    )
    page.keyboard.press("n")
    page.keyboard.type("worth keeping")
    first = current(page)
    page.keyboard.press("Escape")
    page.keyboard.press("2")
    press_and_move(page, "Enter")
    notice = page.get_by_role("alert")
    expect(notice).to_contain_text(sentence)
    expect(notice).to_contain_text("worth keeping")
    page.reload()
    expect(page.get_by_role("alert")).to_contain_text("worth keeping")
    page.unroute("**/judgment")
    page.get_by_role("button", name="Dismiss").click()
    expect(page.get_by_role("alert")).to_be_hidden()
    assert current(page) == first  # still leased: it can be judged again


def test_signed_out_in_another_tab_keeps_the_votes_until_the_next_sign_in(project: Project, open_page: Open) -> None:
    page = open_page(COMPARE, user="ann")
    page.context.clear_cookies()
    press_and_move(page, "5")
    expect(page.locator("#pending")).to_have_text("Votes waiting to be saved: 1")
    expect(page.get_by_role("alert")).to_contain_text("You are signed out.")
    page.get_by_role("link", name="Sign in again").click()
    page.fill("[name=username]", "ann")
    page.fill("[name=password]", PASSWORD)
    page.keyboard.press("Enter")
    until(page, lambda: shown_strengths() == [1])


def test_arrow_keys_only_mark_and_careful_mode_waits_for_enter(project: Project, open_page: Open) -> None:
    page = open_page(COMPARE, user="ann")
    first = current(page)
    page.locator("#vote input[name=choice][value='0']").focus()
    page.keyboard.press("ArrowRight")
    page.wait_for_timeout(300)  # longer than the moment after which a vote goes off
    assert (current(page), checked(page)) == (first, "1")
    page.keyboard.press("?")
    page.get_by_label(re.compile("A digit only marks")).check()
    page.keyboard.press("Escape")
    page.keyboard.press("2")
    page.wait_for_timeout(300)
    assert (current(page), checked(page)) == (first, "-2")
    press_and_move(page, "Enter")
    until(page, lambda: shown_strengths() == [-2])

    page.keyboard.press("?")
    page.get_by_label(re.compile("single keys off")).check()
    page.keyboard.press("Escape")
    page.keyboard.press("7")
    assert checked(page) is None


def test_code_and_formulas_are_shown_and_hostile_text_is_not_run(open_page: Open) -> None:
    project = make_project("helpful", members=[make_user("ann", password=PASSWORD)])
    hostile = (
        "<script>window.hit = 1</script> <img src=x onerror='window.hit = 2'> [x](javascript:window.hit=3) "
        "![tracker](https://tracker.example/pixel.png)"
    )
    make_comparison(
        project,
        a_text="Euler: $e^{i\\pi} + 1 = 0$ and\n\n$$\\int_0^1 x\\,dx$$\n\n```python\ndef f(): return 1\n```",
        b_text=hostile + " $\\href{javascript:window.hit=4}{x}$ \\[\\kern-999em \\rule{999em}{999em}\\]",
    )
    foreign: list[str] = []
    page = open_page("/login/", user="ann")
    page.on("request", lambda request: foreign.append(request.url) if "tracker" in request.url else None)
    page.goto(COMPARE)
    expect(page.locator(".panel .katex-display").first).to_be_visible()
    assert page.locator(".panel pre .k").first.inner_text() == "def"
    expect(page.locator(".panel-text", has_text="window.hit = 1")).to_contain_text("[image: tracker]")
    for link in page.locator(".panel a").all():
        assert not (link.get_attribute("href") or "").startswith("javascript")
    assert page.evaluate("window.hit") is None
    assert not foreign
    # However far a formula reaches, the vote bar stays on top of nothing but itself.
    box = page.locator(".verdict").first.bounding_box()
    assert box and page.evaluate(
        "([x, y]) => Boolean(document.elementFromPoint(x, y).closest('.verdict'))", [box["x"] + 9, box["y"] + 9]
    )


def test_katex_is_not_fetched_where_nothing_is_typeset(project: Project, open_page: Open) -> None:
    page = open_page("/", user="ann")
    requests: list[str] = []
    page.on("request", lambda request: requests.append(request.url))
    page.goto(COMPARE, wait_until="networkidle")
    assert requests and not [url for url in requests if "katex" in url]


def test_the_page_works_without_scripts(project: Project, open_page: Open) -> None:
    page = open_page(COMPARE, user="ann", java_script_enabled=False)
    page.get_by_label("B slightly better").check()
    page.locator("summary", has_text="Note").click()
    page.get_by_label("Note on this comparison").fill("no scripts")
    page.get_by_role("button", name="Save").click()
    page.get_by_role("button", name="Skip").click()
    page.get_by_role("button", name="I cannot tell what is right").click()
    page.get_by_role("button", name="Undo").click()
    page.get_by_label("Neither is good").check()
    page.get_by_role("button", name="Save").click()
    until(page, lambda: shown_strengths() == [1, None])
    assert Judgment.objects.get(strength__isnull=False).note == "no scripts"


def test_two_equal_panels_that_scroll_on_their_own(open_page: Open) -> None:
    project = make_project("helpful", members=[make_user("ann", password=PASSWORD)])
    make_comparison(project, a_text="long\n\n" * 200, b_text="short")
    page = open_page(COMPARE, user="ann")
    left, right = (panel.bounding_box() for panel in page.locator(".panel").all())
    assert (
        left
        and right
        and (left["width"], left["height"], left["y"])
        == (
            right["width"],
            right["height"],
            right["y"],
        )
    )
    scrolls = "[...document.querySelectorAll('.panel-text')].map(panel => panel.scrollTop > 0)"
    page.keyboard.press("j")
    page.wait_for_function(f"() => {scrolls}.some(Boolean)")
    assert page.evaluate("document.scrollingElement.scrollTop") == 0
    assert page.evaluate("document.scrollingElement.scrollHeight <= innerHeight")


@pytest.mark.parametrize("size", [(390, 844), (360, 640)])
def test_on_a_phone_the_vote_bar_stays_and_the_panels_are_tabs(
    project: Project, open_page: Open, size: tuple[int, int]
) -> None:
    page = open_page(COMPARE, user="ann", viewport={"width": size[0], "height": size[1]}, has_touch=True)
    assert page.evaluate("document.documentElement.scrollWidth") <= size[0]
    for name in ("A much better", "About the same", "Neither is good"):
        box = page.get_by_label(name).bounding_box()
        assert box and box["y"] + box["height"] <= size[1] and min(box["width"], box["height"]) >= 24
    expect(page.locator(".panel[data-name=B]")).not_to_be_in_viewport(ratio=0.5)
    page.locator("[data-side-tab]", has_text="B").tap()
    expect(page.locator(".panel[data-name=B]")).to_be_in_viewport(ratio=0.9)
    expect(page.locator("[data-side-tab]", has_text="B")).to_have_attribute("aria-current", "true")
    first = current(page)
    page.get_by_label("B much better").tap()
    page.wait_for_function("id => document.querySelector('#stage .comparison').dataset.assignment !== id", arg=first)
    until(page, lambda: shown_strengths() == [3])
    page.get_by_role("button", name="Undo").first.tap()
    assert (current(page), checked(page)) == (first, "3")


def test_a_lease_near_its_end_is_shown_and_renewed_by_activity(project: Project, open_page: Open, settings) -> None:  # type: ignore[no-untyped-def]
    settings.ASSIGNMENT_LEASE_SECONDS = 100
    page = open_page("/", user="ann")
    page.route("**/lease", lambda route: route.abort())
    page.goto(COMPARE)
    expect(page.locator("#lease")).to_contain_text("Kept for you for 1:")
    settings.ASSIGNMENT_LEASE_SECONDS = 900
    page.unroute("**/lease")

    def is_renewed() -> bool:
        page.mouse.wheel(0, 1)
        return page.locator("#lease").is_hidden()

    until(page, is_renewed)


def test_new_work_appears_on_the_empty_page_by_itself(open_page: Open) -> None:
    project = make_project("helpful", members=[make_user("ann", password=PASSWORD)])
    page = open_page(COMPARE, user="ann")
    expect(page.get_by_role("heading", name="Nothing left")).to_be_visible()
    make_comparison(project)
    page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
    expect(page.locator("#stage .comparison")).to_be_visible()
    assert Assignment.objects.filter(status="leased").count() == 1


def test_the_theme_is_remembered(project: Project, open_page: Open) -> None:
    page = open_page("/", user="ann", color_scheme="light")
    canvas = "getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(canvas)
    for _ in range(2):
        page.locator("[data-theme-toggle]").click()
    assert page.evaluate(canvas) != light
    page.reload()
    assert page.evaluate(canvas) != light
