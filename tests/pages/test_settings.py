"""The settings and the guidelines of a project, by their forms."""

from __future__ import annotations

import re
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client

from annotation import services
from annotation.models import Event, Project
from annotation.pages.protocol_form import ProtocolForm
from annotation.protocol import PRESETS, Aspect, Axis, Demand, Protocol, Scale
from annotation.text_diff import diff_lines
from tests.factories import make_comparison, make_judgment, make_project, make_user

pytestmark = pytest.mark.django_db


@pytest.fixture
def project() -> Project:
    return make_project("p")


def plain(answer: Any) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", answer.content.decode()))


def filled(client: Client, address: str = "/projects/p/settings/") -> dict[str, Any]:
    """What a browser would send if somebody pressed Save without touching the form."""
    answer = client.get(address)
    forms = [answer.context["form"], answer.context["protocol_form"]]
    for rows in (answer.context["protocol_form"].aspects, answer.context["protocol_form"].axes):
        forms += [rows.management_form, *rows.forms]
    data = {"seen": answer.context["seen"]}
    for form in forms:
        for field in form:
            value = field.field.prepare_value(field.initial) if field.initial is not None else ""
            if value is not False:
                data[field.html_name] = "on" if value is True else value
    return data


# ── Settings ─────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("preset", list(PRESETS))
def test_a_preset_fills_the_form_and_saving_it_puts_it_in_place(page: Client, project: Project, preset: str) -> None:
    form = filled(page, f"/projects/p/settings/?preset={preset}")
    assert not Event.objects.filter(kind="settings", data__action="changed").exists()  # looking stores nothing
    answer = page.post("/projects/p/settings/", form, follow=True)
    assert "The settings are saved." in plain(answer)
    project.refresh_from_db()
    assert Protocol.of(project) == PRESETS[preset][1]


def test_rows_are_added_changed_and_dropped(page: Client, project: Project) -> None:
    start = Protocol(aspects=(Aspect("helpfulness", "Helpfulness"), Aspect("fluency", "Fluency")))
    services.update_settings(project, None, protocol=start, overlap_share=0.1, overlap_count=3)
    form = filled(page)
    assert form["overlap_share"] == "10"
    form |= {
        "aspect-0-label": "Helpful?", "aspect-1-label": " ", "aspect-2-label": "Größe!", "aspect-2-high": "7",
        "aspect-3-label": "Helpfulness", "axis-0-label": "Which is less harmful?",
        "protocol-chips": "more accurate\n\n shorter \nshorter", "protocol-chips_demand": "required",
        "protocol-spans": "on", "protocol-rewrite_below": "25", "overlap_share": "12.5",
    }  # fmt: skip
    assert page.post("/projects/p/settings/", form).status_code == 302
    project.refresh_from_db()
    protocol = Protocol.of(project)
    assert protocol.aspects == (
        Aspect("helpfulness", "Helpful?"),
        Aspect("groe", "Größe!", 1, 7),
        Aspect("helpfulness_2", "Helpfulness"),
    )
    assert protocol.axes == (Axis("which_is_less_harmful", "Which is less harmful?"),)
    assert (protocol.chips, protocol.chips_demand) == (("more accurate", "shorter"), Demand.REQUIRED)
    assert (protocol.spans, protocol.rewrite_below, project.overlap_share) == (True, 0.25, 0.125)
    assert page.post("/projects/p/settings/", filled(page), follow=True).status_code == 200
    project.refresh_from_db()
    assert Protocol.of(project) == protocol  # what is saved comes back as it is


def test_what_the_form_does_not_show_stays(page: Client, project: Project) -> None:
    services.update_settings(project, None, protocol=Protocol(conversations=True, responses_per_turn=1))
    page.post("/projects/p/settings/", filled(page) | {"protocol-max_turns": "5"})
    project.refresh_from_db()
    assert Protocol.of(project) == Protocol(conversations=True, responses_per_turn=1, max_turns=5)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"aspect-0-label": "Help", "aspect-0-low": "5", "aspect-0-high": "5"}, "must run from low to high"),
        ({"protocol-scale": "ranking", "axis-0-label": "Which?"}, "A ranking has no second axis"),
        ({"protocol-chips": "x" * 61}, "is longer than 60 characters"),
        ({"judgments_per_comparison": "0"}, "greater than or equal to 1"),
        ({"repeat_share": "101"}, "less than or equal to 100"),
        ({"overlap_share": "10", "overlap_count": "1"}, "must be judged by more people"),
        ({"aspect-TOTAL_FORMS": "x"}, "ManagementForm data is missing"),
        ({"protocol-max_turns": "51"}, "less than or equal to 50"),
    ],
)
def test_what_does_not_fit_is_said_and_nothing_is_stored(
    page: Client, project: Project, changes: dict[str, str], sentence: str
) -> None:
    answer = page.post("/projects/p/settings/", filled(page) | changes | {"name": "Other"})
    assert (answer.status_code, sentence.lower() in plain(answer).lower()) == (422, True)
    project.refresh_from_db()
    assert (project.name, project.protocol) == ("p", {})
    assert 'value="Other"' in answer.content.decode()


def test_a_number_of_people_is_asked_of_what_is_there_on_request(
    page: Client, project: Project, django_capture_on_commit_callbacks: Any
) -> None:
    make_comparison(project)
    for changes, expected in (({}, 1), ({"ask_of_existing": "on"}, 3)):
        with django_capture_on_commit_callbacks(execute=True):
            count = {"judgments_per_comparison": str(2 + len(changes))}
            assert page.post("/projects/p/settings/", filled(page) | count | changes).status_code == 302
        assert project.comparisons.get().required_count == expected


def test_a_judged_project_keeps_its_scale(page: Client, project: Project) -> None:
    make_judgment(make_comparison(project))
    answer = page.post("/projects/p/settings/", filled(page) | {"protocol-scale": "binary"})
    assert "Start a new project for the other scale" in plain(answer)
    project.refresh_from_db()
    assert Protocol.of(project).scale == Scale.SEVEN


def test_a_form_that_was_filled_in_over_other_settings_says_whose(page: Client, project: Project) -> None:
    form = filled(page) | {"gold_every": "30"}
    services.update_settings(project, make_user("ben"), repeat_share=0.05)
    answer = page.post("/projects/p/settings/", form)
    assert answer.status_code == 409
    assert "ben changed the settings while you had this page open" in plain(answer)
    project.refresh_from_db()
    assert (project.gold_every, project.repeat_share) == (20, 0.05)
    again = form | {"seen": answer.context["seen"]}
    assert page.post("/projects/p/settings/", again).status_code == 302
    project.refresh_from_db()
    assert (project.gold_every, project.repeat_share) == (30, 0)


def test_the_preview_shows_the_answers_with_and_without_scripts(page: Client, project: Project) -> None:
    form = filled(page) | {"protocol-scale": "binary", "protocol-note_demand": "required"}
    fragment = page.post("/projects/p/settings/preview/", form)
    assert "A is better 1 About the same 2 B is better 3 Neither is good 0" in plain(fragment)
    assert "A digit marks the answer" in plain(fragment)
    assert "<html" not in fragment.content.decode()
    whole = page.post("/projects/p/settings/", form | {"preview": "1"})
    assert "A is better 1 About the same 2" in plain(whole)
    assert page.post("/projects/p/settings/preview/", form | {"protocol-scale": "x"}).status_code == 204
    project.refresh_from_db()
    assert project.protocol == {}


def test_a_project_is_closed_and_opened(page: Client, project: Project) -> None:
    assert "closed: nothing more is handed out" in plain(
        page.post("/projects/p/settings/open/", {"is_open": "false"}, follow=True)
    )
    project.refresh_from_db()
    assert not project.is_open
    page.post("/projects/p/settings/open/", {"is_open": "true"})
    project.refresh_from_db()
    assert project.is_open
    assert [event.data["after"] for event in Event.objects.filter(data__action="changed").order_by("pk")] == [
        {"is_open": False},
        {"is_open": True},
    ]


def test_every_field_of_the_form_is_a_field_of_the_protocol() -> None:
    form = ProtocolForm(start=Protocol())
    assert set(form.fields) <= set(Protocol.__dataclass_fields__)


# ── Guidelines ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_guidelines_are_written_previewed_and_compared(page: Client, project: Project, staff: User) -> None:
    preview = page.post("/projects/p/guidelines/preview/", {"text": "Be **fair**. <script>x</script>"})
    assert "<strong>fair</strong>" in preview.content.decode()
    assert "<script>x" not in preview.content.decode()
    shown = page.post("/projects/p/guidelines/", {"text": "Be *kind*.", "based_on": "0", "preview": "1"})
    assert "<em>kind</em>" in shown.content.decode()
    project.refresh_from_db()
    assert project.guideline_version == 0
    page.post("/projects/p/guidelines/", {"text": "Be **fair**.", "based_on": "0"})
    answer = page.post("/projects/p/guidelines/", {"text": "Be **fair** and <b>.", "based_on": "1"}, follow=True)
    assert "Version 2 is in force" in plain(answer)
    diff = page.get("/projects/p/guidelines/?from=1&to=2").content.decode()
    assert "<del>Be **fair**.</del>" in diff
    assert "<ins>Be **fair**<b> and &lt;b&gt;</b>.</ins>" in diff
    assert page.get("/projects/p/guidelines/?from=0&to=1").status_code == 200
    for query in ("from=1&to=9", "from=x&to=2", "from=7&to=2"):
        assert page.get(f"/projects/p/guidelines/?{query}").status_code == 404


def test_two_editors_do_not_overwrite_each_other(page: Client, project: Project) -> None:
    services.edit_guidelines(project, "Theirs.", make_user())
    answer = page.post("/projects/p/guidelines/", {"text": "Mine.", "based_on": "0"})
    assert (answer.status_code, "Version 1 came in force" in plain(answer)) == (409, True)
    assert "Mine.</textarea>" in answer.content.decode()
    assert 'name="based_on" value="1"' in answer.content.decode()
    project.refresh_from_db()
    assert project.guidelines == "Theirs."
    too_long = page.post("/projects/p/guidelines/", {"text": "x" * 100_001, "based_on": "1"})
    assert (too_long.status_code, "longer than 100,000 characters" in plain(too_long)) == (422, True)


def test_annotators_read_guidelines_and_cannot_write_them(project: Project) -> None:
    services.edit_guidelines(project, "Be fair.", None)
    user, client = make_user(), Client()
    services.add_member(project, user)
    client.force_login(user)
    text = client.get("/projects/p/guidelines/").content.decode()
    assert "Be fair." in text
    assert "<textarea" not in text
    client.post("/projects/p/guidelines/", {"text": "Be quick.", "based_on": "1"})
    project.refresh_from_db()
    assert project.guidelines == "Be fair."


def test_a_diff_keeps_every_line_of_both_sides() -> None:
    old = "one\ntwo\nthree\nfour\nfive\nsix\nseven\neight\nnine"
    new = "one\ntwo\nthree\n4\nfive\nsix\nseven\neight\nnine\nten"
    lines = diff_lines(old, new)
    assert [(line.kind, "".join(text for _changed, text in line.parts)) for line in lines] == [
        ("same", "one"), ("same", "two"), ("same", "three"), ("removed", "four"), ("added", "4"), ("same", "five"),
        ("same", "six"), ("same", "seven"), ("same", "eight"), ("same", "nine"), ("added", "ten"),
    ]  # fmt: skip
    assert diff_lines(old, old) == []
    far = diff_lines("x\n" * 20 + "a", "x\n" * 20 + "b")
    assert [line.kind for line in far] == ["gap", "same", "same", "same", "removed", "added"]


def test_a_stored_protocol_that_cannot_be_read_is_said_and_mended(project: Project) -> None:
    """As an older version, or somebody with a database shell, may have left it."""
    Project.objects.filter(pk=project.pk).update(protocol={"scale": 7, "chips": ["Too long"], "max_turns": "many"})
    make_comparison(project)
    admin, ann = Client(), Client()
    admin.force_login(make_user("boss", is_staff=True))
    person = make_user("ann")
    services.add_member(project, person)
    ann.force_login(person)
    answer = ann.get("/projects/p/compare/")
    assert answer.status_code == 409
    assert "cannot be read: scale must be one of" in plain(answer)
    assert "/projects/p/settings/" not in answer.content.decode(), "which is not open to an annotator"
    assert "/projects/p/settings/" in admin.get("/projects/p/converse/models/").content.decode()
    said = ann.get("/projects/p/compare/", headers={"X-Requested-With": "fetch"})
    assert (said.status_code, said["Content-Type"]) == (409, "text/plain; charset=utf-8")
    page = admin.get("/projects/p/settings/")
    assert page.status_code == 200
    assert "holds what can be read of it" in plain(page)
    assert admin.post("/projects/p/settings/", filled(admin)).status_code == 302
    project.refresh_from_db()
    assert Protocol.of(project) == Protocol(chips=("Too long",))
    assert ann.get("/projects/p/compare/").status_code == 200
