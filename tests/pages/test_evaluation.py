"""FB-Bench's pages: import, browse, checklists, runs and their files, and ticking without knowing who wrote."""

from __future__ import annotations

import io
import json
import zipfile
from typing import Any

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client
from django.urls import reverse

from annotation.feedback import Feedback
from annotation.models import Event, Project, ResponseSource
from annotation.services import turns
from rlhf.benchmark_curation import candidates, judges_of
from rlhf.benchmark_figures import as_data_set
from rlhf.evaluation.fb_bench import Verdict
from rlhf.models import BenchmarkItem, BenchmarkRun, BenchmarkSet, BenchmarkTicks
from rlhf.services.benchmarks import store_judgment
from tests.chat_server import Exchange, chat_server
from tests.factories import make_project, make_source, make_user
from tests.fb_bench_items import correction, maintenance, tick
from tests.talks import make_talk, make_talk_project, write

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("data_dir")]
ITEMS = [
    correction("Count the apples", error_type=["Factual Error"]),
    correction("Sort the list", task_type="Coding", sub_task_type="Code Generation"),
    maintenance("Is it raining?"),
]


@pytest.fixture
def staff(client: Client) -> Client:
    client.force_login(make_user("boss", is_staff=True))
    return client


def upload(rows: list[Any], name: str = "items.json") -> SimpleUploadedFile:
    return SimpleUploadedFile(name, json.dumps(rows).encode())


@pytest.fixture
def data_set(staff: Client) -> BenchmarkSet:
    answer = staff.post(reverse("benchmark_set_new"), {"file": upload(ITEMS)})
    data_set = BenchmarkSet.objects.get()
    assert answer["Location"] == reverse("benchmark_set", args=[data_set.pk])
    return data_set


def judge_all(staff: Client, data_set: BenchmarkSet, met: bool, model: str = "secret-model") -> BenchmarkRun:
    rows = [tick(item, [met] * 2, infer_model=model) for item in ITEMS]
    staff.post(reverse("benchmark_run_import", args=[data_set.pk]), {"file": upload(rows, "judgments.json")})
    return BenchmarkRun.objects.latest("pk")


def test_new_items_and_plans_are_reached_before_anything_is_imported(staff: Client) -> None:
    text = staff.get(reverse("evaluation_home")).content.decode()
    assert f'href="{reverse("curation")}"' in text and f'href="{reverse("evaluation_plans")}"' in text
    assert reverse("benchmark_run_new") not in text


def test_what_is_no_item_is_named_and_the_rest_is_imported(staff: Client) -> None:
    rows = [*ITEMS, correction("x", checklist=[["a", 0.5]])]
    text = staff.post(reverse("benchmark_set_new"), {"file": upload(rows)}, follow=True).content.decode()
    assert "3 items imported." in text
    assert "1 row was left out: row 4: checklist: the weights sum to 0.5, not to 1" in text
    text = staff.post(reverse("benchmark_set_new"), {"file": upload(rows)}, follow=True).content.decode()
    assert "This file is here already, as items." in text
    text = staff.post(
        reverse("benchmark_set_new"), {"file": SimpleUploadedFile("x.json", b"{")}, follow=True
    ).content.decode()
    assert "X.json holds no FB-Bench item" in text


def test_items_are_filtered_and_each_choice_says_how_many_it_leaves(staff: Client, data_set: BenchmarkSet) -> None:
    address = reverse("benchmark_set", args=[data_set.pk])
    text = staff.get(address, {"task": "Coding"}).content.decode()
    assert "Sort the list" in text and "Count the apples" not in text
    assert "Mathematics (2)" in text
    text = staff.get(address, {"deficiency_types": "factual_error"}).content.decode()
    assert "Count the apples" in text and "Sort the list" not in text
    text = staff.get(address, {"text": "raining", "scenario": "response_maintenance"}).content.decode()
    assert "Is it raining?" in text and "1 item" in text


def test_a_checklist_is_edited_by_its_rules_and_versioned(staff: Client, data_set: BenchmarkSet) -> None:
    item = data_set.items.get(position=1)
    address = reverse("benchmark_item", args=[item.pk])
    posted = {"based_on": 1, "text": ["Says five", "Says why", ""], "weight": ["0.6", "0.3", ""]}
    answer = staff.post(address, posted)
    assert answer.status_code == 422
    assert "the weights sum to 0.9, not to 1" in answer.content.decode()
    assert "Says why" in answer.content.decode()  # nothing typed is lost
    answer = staff.post(address, posted | {"weight": ["0.6", "x", ""]})
    assert "Give criterion 2 a weight." in answer.content.decode()
    assert staff.post(address, posted | {"weight": ["0.6", "0,4", ""]}).status_code == 302
    newest = item.checklists.last()
    assert newest is not None
    assert (newest.version, newest.criteria) == (2, [["Says five", 0.6], ["Says why", 0.4]])
    stale = staff.post(address, posted | {"weight": ["0.5", "0.5", ""]})
    assert "Somebody saved version 2 meanwhile" in stale.content.decode()
    other = data_set.items.get(position=3)
    assert staff.post(
        reverse("benchmark_item", args=[other.pk]), {"based_on": 1, "text": ["Stays dry"]}
    ).status_code == 302  # fmt: skip
    assert BenchmarkItem.objects.with_checklist().get(pk=other.pk).criteria == [["Stays dry", None]]  # type: ignore[attr-defined]


def test_a_run_shows_its_figures_and_gives_its_files(staff: Client, data_set: BenchmarkSet) -> None:
    run = judge_all(staff, data_set, True)
    text = staff.get(reverse("benchmark_run", args=[run.pk])).content.decode()
    assert "secret-model" in text and "100.00" in text and "<svg" in text
    files = {}
    for name in ("answers.jsonl", "judgments.jsonl", "results.csv", "results.xlsx"):
        answer = staff.get(reverse("benchmark_run_export", args=[run.pk, name]))
        files[name] = b"".join(answer) if answer.streaming else answer.content
    assert staff.get(reverse("benchmark_run_export", args=[run.pk, "secrets"])).status_code == 404
    rows = [json.loads(line) for line in files["judgments.jsonl"].splitlines()]
    assert [row["judgement"] for row in rows] == [
        tick(item, [True, True])["judgement"] for item in sorted(ITEMS, key=lambda item: item["user_query"])
    ]
    assert b"Count the apples" in files["results.csv"]
    with zipfile.ZipFile(io.BytesIO(files["results.xlsx"])) as book:
        assert "Count the apples" in book.read("xl/worksheets/sheet1.xml").decode()
    board = staff.get(reverse("evaluation_home")).content.decode()
    assert "secret-model" in board and "+0.00" not in board
    csv = staff.get(reverse("evaluation_export", args=[data_set.pk, "leaderboard.csv"])).content.decode()
    assert csv.splitlines()[1] == "1,secret-model,a-judge,,,100.0,100.0,100.0,0.0,0"


def failed(item: dict[str, Any], failure: str, **more: Any) -> dict[str, Any]:
    """A judgment that cannot be used, as our own files have it."""
    return tick(item, [True] * 2) | {"judgement": None, "failure": failure, "failure_note": f"Why {failure}.", **more}


def test_a_run_without_a_usable_judgment_gives_its_files_and_every_item_that_failed(
    staff: Client, data_set: BenchmarkSet
) -> None:
    many = [correction(f"Add {number} and 1") for number in range(25)]
    staff.post(reverse("benchmark_set_new"), {"file": upload(many, "many.json")})
    large = BenchmarkSet.objects.latest("pk")
    rows = [failed(item, "prose", raw=f"Well <b>{number}</b>") for number, item in enumerate(many[:22])]
    rows.append(failed(many[22], "half_json", raw='{"a"'))
    staff.post(reverse("benchmark_run_import", args=[large.pk]), {"file": upload(rows)})
    run = BenchmarkRun.objects.latest("pk")
    assert run.report["scored"] == 0
    csv = staff.get(reverse("evaluation_export", args=[large.pk, "leaderboard.csv"])).content.decode()
    assert csv.splitlines()[1].startswith(",a-model,")  # no score, no rank
    address = reverse("benchmark_run", args=[run.pk])
    page = staff.get(address)
    text = page.content.decode()
    for name in ("results.csv", "results.xlsx", "answers.jsonl", "judgments.jsonl"):
        assert reverse("benchmark_run_export", args=[run.pk, name]) in text
    counts = {kind.key: kind.count for kind in page.context["left_out"]}
    assert counts == {"prose": 22, "half_json": 1, "missing": 2}
    # the most frequent failure first, with links to its items and the judge's own words
    assert len(page.context["left_out_rows"]) == 20
    first = page.context["left_out_rows"][0][0]
    assert reverse("benchmark_item", args=[first.pk]) in text
    assert "Why prose." in text and "Well &lt;b&gt;0&lt;/b&gt;" in text
    assert "?left_out=prose&amp;page=2#left-out" in text
    rest = staff.get(address, {"left_out": "prose", "page": "2"})
    assert [row[0].query for row in rest.context["left_out_rows"]] == ["Add 20 and 1", "Add 21 and 1"]
    missing = staff.get(address, {"left_out": "missing"}).context["left_out_rows"]
    assert [row[0].query for row in missing] == ["Add 23 and 1", "Add 24 and 1"]
    assert staff.get(address, {"left_out": "nonsense"}).context["left_out_kind"].key == "prose"


def test_a_new_run_is_asked_for_with_its_limits(staff: Client, data_set: BenchmarkSet) -> None:
    model = make_source("model", kind="model", served_model="m")
    posted = {
        "data_set": data_set.pk, "source": model.pk, "judge": model.pk, "prompt_language": "en", "max_tokens": 256,
        "judge_max_tokens": 512, "judge_attempts": 2, "parallel": 4,
    }  # fmt: skip
    assert staff.post(reverse("benchmark_run_new"), posted | {"judge_attempts": 0}).status_code == 422
    answer = staff.post(reverse("benchmark_run_new"), posted | {"judge": ""}, follow=True)
    only_answers = BenchmarkRun.objects.get()
    text = answer.content.decode()
    assert only_answers.judge is None and "answers of at most 256 tokens" in text and "<dt>judgments</dt>" not in text
    only_answers.delete()
    answer = staff.post(reverse("benchmark_run_new"), posted)
    run = BenchmarkRun.objects.get()
    assert answer["Location"] == reverse("benchmark_run", args=[run.pk])
    text = staff.get(answer["Location"]).content.decode()
    assert "hx-get" in text and "queued" in text
    staff.post(reverse("benchmark_run_act", args=[run.pk]), {"action": "stop"})
    run.refresh_from_db()
    assert run.status == "cancelled"
    staff.post(reverse("benchmark_run_act", args=[run.pk]), {"action": "go_on"})
    run.refresh_from_db()
    assert run.status == "queued"


def test_people_tick_without_knowing_who_wrote(staff: Client, data_set: BenchmarkSet) -> None:
    judge_all(staff, data_set, True)
    address = reverse("benchmark_tick", args=[data_set.pk])
    for left in (3, 2, 1):
        page = staff.get(address)
        text = page.content.decode()
        assert f"{left} left" in text
        assert "secret-model" not in text and "a-judge" not in text
        assert '<p dir="auto">It is 5.</p>' in text
        answer, item = page.context["answer"], page.context["item"]
        posted = {"answer": answer.pk, "checklist": item.checklist_id, "met-0": "yes"}
        assert staff.post(address, posted).status_code == 422
        assert staff.post(address, posted | {"met-1": "no"}).status_code == 302
    assert "Nothing left to tick" in staff.get(address).content.decode()
    assert BenchmarkTicks.objects.filter(met=[True, False]).count() == 3
    board = staff.get(reverse("evaluation_home")).content.decode()
    assert "50.0 %" in board
    item_page = staff.get(reverse("benchmark_item", args=[data_set.items.all()[0].pk])).content.decode()
    assert "a-judge: 1.00" in item_page.replace("\n", "")


def test_ticks_are_corrected_and_given_again_where_the_checklist_changed(
    staff: Client, data_set: BenchmarkSet
) -> None:
    judge_all(staff, data_set, True)
    person = make_user("ann")
    project = make_project("helpful", members=[person])
    staff.post(reverse("benchmark_set_assign", args=[data_set.pk]), {"project": project.pk})
    client = Client()
    client.force_login(person)
    address = reverse("project_tick", args=[project.slug])
    ids = []
    for _item in range(3):
        page = client.get(address)
        ids.append(page.context["answer"].pk)
        posted = {"answer": ids[-1], "checklist": page.context["item"].checklist_id, "met-0": "yes", "met-1": "no"}
        client.post(address, posted)
    # the last one, and the one before it, come with what was said
    text = client.get(address).content.decode()
    assert "Nothing left to tick" in text and f"?answer={ids[-1]}" in text
    page = client.get(address, {"answer": ids[-1]})
    assert [said for _number, _text, said in page.context["criteria"]] == ["yes", "no"]
    assert "takes the place of that" in page.content.decode() and f"?answer={ids[-2]}" in page.content.decode()
    client.post(address, posted | {"met-1": "yes"})
    assert BenchmarkTicks.objects.get(answer=ids[-1]).met == [True, True]
    assert BenchmarkTicks.objects.count() == 3
    # nobody sees ticks of others, nor answers that they have not ticked
    other = make_user("ben")
    project.members.add(other)
    stranger = Client()
    stranger.force_login(other)
    assert stranger.get(address, {"answer": ids[-1]}).status_code == 404
    # an edited checklist is ticked again; what was ticked by the other stays
    item = BenchmarkTicks.objects.get(answer=ids[0]).answer.item
    edited = {"based_on": 1, "text": ["Is right"], "weight": ["1"]}
    assert staff.post(reverse("benchmark_item", args=[item.pk]), edited).status_code == 302
    assert "1 answer to check against its criteria" in client.get(reverse("home")).content.decode()
    page = client.get(address)
    assert page.context["answer"].pk == ids[0] and "has changed since you ticked it" in page.content.decode()
    posted = {"answer": ids[0], "checklist": page.context["item"].checklist_id, "met-0": "no"}
    assert client.post(address, posted).status_code == 302
    assert sorted(BenchmarkTicks.objects.filter(answer=ids[0]).values_list("met", flat=True)) == [
        [False],
        [True, False],
    ]
    assert "Nothing left to tick" in client.get(address).content.decode()
    board = " ".join(staff.get(reverse("evaluation_home")).content.decode().split())
    assert "3 of 3" in board  # the judgment by the first version is held against the ticks by it


def test_a_data_set_goes_out_as_it_is_now_and_comes_back(staff: Client, data_set: BenchmarkSet) -> None:
    item = data_set.items.get(position=1)
    edited = {"based_on": 1, "text": ["Says five", "Says why"], "weight": ["0.6", "0,4"]}
    staff.post(reverse("benchmark_item", args=[item.pk]), edited)
    project = make_talk_project(responses_per_turn=1)
    talked_about(project, "Which one is the biggest of all?")
    [offered] = candidates(project, None)
    posted = {"text": ["Names the right one", "Says sorry"], "weight": ["0.9", "0.1"]}
    staff.post(reverse("curation_item", args=[project.pk, offered.turn_id]), posted)
    for one in (data_set, BenchmarkSet.objects.get(project=project)):
        address = reverse("evaluation_export", args=[one.pk, "items.jsonl"])
        assert address in staff.get(reverse("benchmark_set", args=[one.pk])).content.decode()
        content = b"".join(staff.get(address))
        file = SimpleUploadedFile(f"again-{one.pk}.jsonl", content)
        staff.post(reverse("benchmark_set_new"), {"file": file})
        again = BenchmarkSet.objects.latest("pk")
        assert again.pk != one.pk
        assert as_data_set(again).items == as_data_set(one).items
        assert b"".join(staff.get(reverse("evaluation_export", args=[again.pk, "items.jsonl"]))) == content
    assert as_data_set(again).items[0].checklist[0].text == "Names the right one"


def test_the_people_of_a_project_tick_what_staff_hands_them(staff: Client, data_set: BenchmarkSet) -> None:
    judge_all(staff, data_set, True)
    person, stranger = make_user("ann"), make_user("other")
    project = make_project("helpful", members=[person])
    client, outside = Client(), Client()
    client.force_login(person)
    outside.force_login(stranger)
    address = reverse("project_tick", args=[project.slug])
    assert "Nothing left to tick" in client.get(address).content.decode()
    assert client.get(reverse("benchmark_tick", args=[data_set.pk])).status_code == 403
    assign = reverse("benchmark_set_assign", args=[data_set.pk])
    assert client.post(assign, {"project": project.pk}).status_code == 403
    said = staff.post(assign, {"project": project.pk}, follow=True).content.decode()
    assert "The people of helpful tick these answers now." in said
    home = client.get(reverse("home")).content.decode()
    assert "3 answers to check against their criteria" in home and address in home
    assert address not in outside.get(reverse("home")).content.decode()
    assert outside.get(address).status_code == 404
    page = client.get(address)
    text = page.content.decode()
    assert "secret-model" not in text and "a-judge" not in text and "/evaluation/" not in text
    posted = {"answer": page.context["answer"].pk, "checklist": page.context["item"].checklist_id, "note": "Hm."}
    refused = client.post(address, posted | {"met-0": "yes"})
    assert refused.status_code == 422 and 'value="Hm."' in refused.content.decode()
    assert client.post(address, posted | {"met-0": "yes", "met-1": "no"}).status_code == 302
    ticks = BenchmarkTicks.objects.get()
    assert (ticks.annotator.name, ticks.met) == ("ann", [True, False])
    # beside the judges on the page of the item, and in the agreement
    item_page = staff.get(reverse("benchmark_item", args=[ticks.answer.item_id])).content.decode()
    assert "<th>ann<br>" in item_page and "a-judge: 1.00" in item_page
    assert "50.0 %" in staff.get(reverse("evaluation_home")).content.decode()
    Project.objects.update(is_open=False)
    assert "Nothing left to tick" in client.get(address).content.decode()
    staff.post(assign, {"project": ""})
    assert client.post(address, posted | {"met-0": "yes", "met-1": "no"}).status_code == 404
    events = Event.objects.filter(project=project, data__answers_to_tick="items").order_by("pk")
    assert [event.data["action"] for event in events] == ["given", "taken"]


def test_a_model_drafts_a_checklist_and_a_person_saves_it(staff: Client, data_set: BenchmarkSet) -> None:
    item = data_set.items.get(position=1)
    address = reverse("benchmark_draft", args=[item.pk])
    with chat_server() as server:
        drafter = make_source("drafter", kind="model", served_model="d")
        ResponseSource.objects.filter(pk=drafter.pk).update(base_url=server.url)

        def say(text: str) -> Any:
            def reply(exchange: Exchange) -> None:
                exchange.start()
                exchange.say(text)
                exchange.complete()

            server.reply = reply
            return staff.post(address, {"source": drafter.pk})

        answer = say('Sure: [["Gives five", 3], ["Says why", 1], ["Says sorry", "high"]]')
        text = answer.content.decode()
        assert "This is a draft. Check every line, then save it." in text
        assert answer.context["rows"][:3] == [("Gives five", 0.5), ("Says why", 0.17), ("Says sorry", 0.33)]
        assert item.checklists.count() == 1  # nothing is stored before a person saves it
        asked = server.requests[-1]["messages"][0]["content"]
        assert "Count the apples" in asked and "Are you sure?" in asked and "weights sum to 1" in asked
        assert say("1. Gives five\n2. Says why").context["rows"][:2] == [("Gives five", 0.5), ("Says why", 0.5)]
        assert "The model’s draft could not be read." in say("I cannot help with that.").content.decode()

        def refuse(exchange: Exchange) -> None:
            exchange.refuse(400, "no")

        server.reply = refuse
        assert "The model refused this conversation." in staff.post(address, {"source": drafter.pk}).content.decode()
    posted = {"based_on": 1, "drafted_by": drafter.pk, "text": ["Gives five"], "weight": ["1"]}
    assert staff.post(reverse("benchmark_item", args=[item.pk]), posted).status_code == 302
    saved = item.checklists.last()
    assert saved is not None and (saved.version, saved.drafted_by) == (2, drafter)
    assert "drafted by drafter" in staff.get(reverse("benchmark_item", args=[item.pk])).content.decode()


def test_several_judges_stand_side_by_side(staff: Client, data_set: BenchmarkSet) -> None:
    run = judge_all(staff, data_set, True)
    item = data_set.items.get(position=1)
    other = make_source("other-judge", kind="model", served_model="o")
    again = BenchmarkRun.objects.create(
        data_set=data_set, source=run.source, judge=other, answers_from=run, status="succeeded",
        finished_at=run.finished_at,
    )  # fmt: skip
    answer = run.answers.get(item=item)
    store_judgment(again, answer, item.checklists.get(), [Verdict(True, "Seen."), Verdict(False, "Missing.")])
    page = staff.get(reverse("benchmark_item", args=[item.pk]))
    [(_answer, _text, [version])] = page.context["answers"]
    assert [judgment.run.judge.name for judgment in version.read] == ["a-judge", "other-judge"]
    assert version.rows[1] == ("Gives 5", [(True, "Because."), (False, "Missing.")], [])
    text = " ".join(page.content.decode().split())
    assert "<th>a-judge: 1.00</th><th>other-judge: 0.30</th>" in text
    assert "other-judge" in staff.get(reverse("benchmark_run", args=[run.pk])).content.decode()


def talked_about(project: Any, question: str) -> None:
    talk = make_talk(project, text=question)
    write(talk, "It is the big one.")
    feedback = Feedback("error_correction", ["factual_error"], ["pointing_out_errors"])
    turns.send_feedback(talk, 0, text="That is wrong.", feedback=feedback)


def test_items_come_out_of_conversations_masked_once_and_with_a_checklist(staff: Client) -> None:
    project = make_talk_project(responses_per_turn=1)
    question = "Which bank has the account of jane.doe@mail-house.org, and why did she choose that one of all?"
    talked_about(project, question)
    talked_about(project, question + " ")
    text = staff.get(reverse("curation")).content.decode()
    assert "jane.doe" not in text and "[EMAIL]" in text
    assert text.count("Make an item") == 1 and "nearly repeats" in text
    [offered, _again] = candidates(project, None)
    address = reverse("curation_item", args=[project.pk, offered.turn_id])
    posted = {"text": ["Names the bank", ""], "weight": ["0.5", ""]}
    assert "the weights sum to 0.5, not to 1" in staff.post(address, posted).content.decode()
    assert staff.post(address, posted | {"weight": ["1", ""]}).status_code == 302
    item = BenchmarkItem.objects.with_checklist().get()
    assert (item.query, item.data_set.project) == (question.replace("jane.doe@mail-house.org", "[EMAIL]"), project)
    assert item.deficiency_types == ["factual_error"]
    assert "Make an item" not in staff.get(reverse("curation")).content.decode()


def test_what_is_too_easy_is_left_out_by_one_judges_word_and_brought_back(
    staff: Client, data_set: BenchmarkSet
) -> None:
    address = reverse("benchmark_easy", args=[data_set.pk])
    assert "No judged run yet" in staff.get(address).content.decode()
    for model in ("x", "y"):
        strict = [tick(item, [number < 2] * 2, infer_model=model) for number, item in enumerate(ITEMS)]
        kind = [row | tick(item, [True] * 2, judge_model="kind") for row, item in zip(strict, ITEMS, strict=True)]
        for rows in (strict, [row | {"infer_model": model} for row in kind]):
            staff.post(reverse("benchmark_run_import", args=[data_set.pk]), {"file": upload(rows)})
    judges = {judge.name: judge for judge in judges_of(data_set)}
    text = " ".join(staff.get(address).content.decode().split())
    assert "0 items are solved by all" in text and "a-judge has judged 2 models" in text
    assert staff.get(address, {"models": "0", "judge": str(judges["kind"].pk)}).status_code == 422
    for name, solved in (("a-judge", 2), ("kind", 3)):
        page = staff.get(address, {"models": "2", "judge": str(judges[name].pk)})
        assert len(page.context["solved"]) == solved
    newer = [failed(ITEMS[0], "prose", infer_model="x", judge_model="kind")]
    staff.post(reverse("benchmark_run_import", args=[data_set.pk]), {"file": upload(newer)})
    page = staff.get(address, {"models": "2", "judge": str(judges["kind"].pk)})
    assert len(page.context["solved"]) == 2  # what an older run found does not stand in for the newest
    page = staff.post(address, {"action": "drop", "models": 2, "judge": judges["a-judge"].pk}, follow=True)
    assert "2 items are left out of runs to come." in page.content.decode()
    assert "2 items are left out of runs" in " ".join(page.content.decode().split())
    assert [item.query for item in data_set.items.kept()] == ["Is it raining?"]
    items = staff.get(reverse("benchmark_set", args=[data_set.pk])).content.decode()
    assert "left out of runs: 2" in items and items.count(">left out<") == 2
    first = data_set.items.get(position=1)
    assert "Left out of runs since" in staff.get(reverse("benchmark_item", args=[first.pk])).content.decode()
    exported = b"".join(staff.get(reverse("evaluation_export", args=[data_set.pk, "items.jsonl"])))
    assert len(exported.splitlines()) == 1
    staff.post(address, {"action": "bring_back", "item": first.pk})
    assert data_set.items.kept().count() == 2
    staff.post(address, {"action": "bring_back_all"})
    assert data_set.items.kept().count() == 3
