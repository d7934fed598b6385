"""What identifies people is found and masked; sums, versions, dates and examples stay."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from annotation.feedback import Feedback, fb_bench_items, feedback_records
from annotation.models import (
    Comparison,
    DataJobStatus,
    ErrorSpan,
    Event,
    EventKind,
    Judgment,
    Prompt,
    PromptWords,
    Response,
    TurnSide,
)
from annotation.personal_data import Finding, PersonalKind, find_personal_data, mask_text, moved
from annotation.services import DomainError, content_sha256, masking, refresh_browse_index
from annotation.services.turns import send_feedback
from tests.factories import make_comparison, make_judgment, make_project, make_prompt, make_response, make_user
from tests.talks import make_talk, make_talk_project, pick, write


def found(text: str, lang: str = "") -> list[tuple[str, str]]:
    return [(finding.kind.value, text[finding.start : finding.end]) for finding in find_personal_data(text, lang)]


@pytest.mark.parametrize(
    ("text", "lang", "kind", "what"),
    [
        ("Write to zhang.san+x@mail.qq.com.", "", "email", "zhang.san+x@mail.qq.com"),
        ("邮箱li_xiaofan@foxmail.com，谢谢", "zh", "email", "li_xiaofan@foxmail.com"),
        ("Call us at 650-636-4884 or visit", "en", "phone", "650-636-4884"),
        ("(647) 321-1199", "en", "phone", "(647) 321-1199"),
        ("It’s +44 20 7946 0958.", "", "phone", "+44 20 7946 0958"),
        ("My cell is 4155552671", "en", "phone", "4155552671"),
        ("电话13812345678", "zh", "phone", "13812345678"),
        ("手机：138 1234 5678", "zh", "phone", "138 1234 5678"),
        ("Telefon: 030 901820", "de", "phone", "030 901820"),
        ("seen from 81.2.69.142 today", "", "ip", "81.2.69.142"),
        ("from 2a00:1450:4001:81b::200e on", "", "ip", "2a00:1450:4001:81b::200e"),
        ("card 4012 8888 8888 1881 exp 12/29", "", "card", "4012 8888 8888 1881"),
        ("3782 822463 10005", "", "card", "3782 822463 10005"),
        ("IBAN DE89 3704 0044 0532 0130 00 IS MINE", "", "iban", "DE89 3704 0044 0532 0130 00"),
        ("GB82WEST12345698765432", "", "iban", "GB82WEST12345698765432"),
        ("身份证 11010519491231002X。", "zh", "national_id", "11010519491231002X"),
        ("SSN 859-56-0028", "en", "national_id", "859-56-0028"),
        ("CPF 529.982.247-25", "pt", "national_id", "529.982.247-25"),
        ("HETU 131052-308T", "fi", "national_id", "131052-308T"),
        ("RSSMRA85T10A562S", "it", "national_id", "RSSMRA85T10A562S"),
    ],
)
def test_what_identifies_somebody_is_found(text: str, lang: str, kind: str, what: str) -> None:
    assert found(text, lang) == [(kind, what)]


@pytest.mark.parametrize(
    "text",
    [
        "3.14159265358979 and 0.4155552671",
        "1234567890 * 9876543210 = 12193263111263526900",
        "2 000 000 000 + 415 555 2671 = 3",
        "415 555 2671 / 3 and 555-123-4567 = ?",
        "The years 2019-2020-2021, on 2024-01-15 10:30, room 12-34-56.",
        "She has 12345678 apples; he has 4155552671.",
        "$4,155,552,671 or €415 555 2671",
        "version 1.2.3.4, section 8.8.8.8, v2.10.11.12",
        "ping 127.0.0.1, 192.168.1.20 and 203.0.113.9",
        "std::vector<int> abc::def 12:34:56 fe80::1",
        "a@example.com, b@mail.example.org, git@github.com:team/repository.git",
        "decorators @property and x@y",
        "4012 8888 8888 1882 has a wrong check digit, so have DE89 3704 0044 0532 0130 01 and 110105194912310021",
        "1111 1111 1111 1111 and 0000000000000000",
        "ISBN 978-3-16-148410-0",
        "123456789012345678901234567890",
        "1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12",
    ],
)
def test_numbers_that_are_nobodys_stay(text: str) -> None:
    assert found(text) == []


def test_masking_leaves_the_rest_as_it_was() -> None:
    text = "Ask ann@corp.com (cell 415-555-2671) about card 4012888888881881."
    findings = find_personal_data(text, "en")
    assert mask_text(text, findings) == "Ask [EMAIL] (cell [PHONE]) about card [CARD]."
    assert find_personal_data(mask_text(text, findings), "en") == []


@given(st.lists(st.tuples(st.text(max_size=12), st.text("abc", min_size=1, max_size=12)), max_size=4), st.data())
def test_a_passage_keeps_its_words_when_the_text_is_masked(parts: list[tuple[str, str]], data: st.DataObject) -> None:
    text, findings = "", []
    for before, hidden in parts:
        text += before
        findings.append(Finding(len(text), len(text) + len(hidden), PersonalKind.EMAIL))
        text += hidden
    text += "end"
    start = data.draw(st.integers(0, len(text) - 1))
    end = data.draw(st.integers(start + 1, len(text)))
    masked = mask_text(text, findings)
    new_start, new_end = moved(start, end, findings)
    assert 0 <= new_start < new_end <= len(masked)
    inside = [f for f in findings if f.start < end and start < f.end]
    widened_start = min([start, *(f.start for f in inside)])
    widened_end = max([end, *(f.end for f in inside)])
    shifted = [Finding(f.start - widened_start, f.end - widened_start, f.kind) for f in inside]
    assert masked[new_start:new_end] == mask_text(text[widened_start:widened_end], shifted)


# ── In the database ──────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.django_db
def test_a_scan_counts_and_changes_nothing_and_keeps_nothing_of_what_it_found() -> None:
    project = make_project()
    prompt = make_prompt(project, "Mail ann@corp.com or bob@corp.com")
    make_response(prompt, text="It’s +1 917-444-6321.")
    make_prompt(project, "2 + 2 = 4")
    job = masking.start_scan(project, user=make_user())
    assert job.status == DataJobStatus.DONE, job.error
    assert job.result["hits"] == {"email": 2, "phone": 1}
    assert (job.result["prompts"], job.result["responses"]) == (1, 1)
    assert "corp" not in json.dumps(job.result)
    prompt.refresh_from_db()
    assert "ann@corp.com" in prompt.messages[0]["content"]


@pytest.mark.django_db
def test_masking_replaces_texts_and_keeps_the_hash_of_what_was_judged() -> None:
    project, user = make_project(), make_user()
    judged = make_comparison(project, a_text="Write to ann@corp.com, she knows.", b_text="I do not know.")
    vote = make_judgment(judged)
    ErrorSpan.objects.create(judgment=vote, response=judged.response_a, start=9, end=21, kind="factual")
    after = ErrorSpan.objects.create(judgment=vote, response=judged.response_a, start=23, end=32, kind="other")
    unjudged = make_comparison(project, a_text="Call 415-555-2671 or eve@corp.com", b_text="No.")
    before = judged.response_a.text_sha256
    Prompt.objects.filter(pk=unjudged.prompt_id).update(lang="en")

    job = masking.start_masking(project, ["email"], user=user)
    assert job.status == DataJobStatus.DONE, job.error
    first = Response.objects.get(pk=judged.response_a_id)
    assert first.text == "Write to [EMAIL], she knows."
    assert (first.text_sha256, first.original_sha256) == (content_sha256(first.text), before)
    assert [first.text[span.start : span.end] for span in ErrorSpan.objects.order_by("pk")] == ["[EMAIL]", "she knows"]
    assert first.text[after.start - 5 : after.end - 5] == "she knows"
    second = Response.objects.get(pk=unjudged.response_a_id)
    assert second.text == "Call 415-555-2671 or [EMAIL]", "only the kinds that were chosen"
    assert second.original_sha256 == ""
    event = Event.objects.get(kind=EventKind.EDIT, project=project)
    assert event.data == {"what": "masking", "job": job.pk, "email": 2, "responses": 2, "judged_before": 1}

    again = masking.start_masking(project, ["email", "phone"], user=user)
    assert again.result == {"phone": 1, "responses": 1}
    assert Response.objects.get(pk=judged.response_a_id).original_sha256 == before


@pytest.mark.django_db
def test_masking_reaches_what_repeats_the_texts() -> None:
    project, user = make_talk_project(), make_user()
    talk = make_talk(project)
    write(talk, "It is four.", "It is five.")
    pick(talk, "-2", note="Somebody wrote ann@corp.com here")
    correction = Feedback("error_correction", ["factual_error"], ["pointing_out_errors"])
    send_feedback(talk, 0, text="Wrong: ask secret.person@corp.com", feedback=correction)
    TurnSide.objects.filter(turn__position=1, position=0).update(text="As bob@corp.com says")

    scan = masking.start_scan(project, user=user)
    assert (scan.result["hits"], scan.result["prompts"], scan.result["notes"]) == ({"email": 4}, 1, 3)
    job = masking.start_masking(project, ["email"], user=user)
    assert job.status == DataJobStatus.DONE, job.error
    assert job.result == {"email": 4, "prompts": 1, "notes": 3}
    assert talk.turns.get(position=0).feedback == "Wrong: ask [EMAIL]"
    assert Judgment.objects.get().note == "Somebody wrote [EMAIL] here"
    assert TurnSide.objects.get(turn__position=1, position=0).text == "As [EMAIL] says"
    for records in (feedback_records(project), fb_bench_items(project)):
        shown = json.dumps(list(records), default=str)
        assert "[EMAIL]" in shown
        assert "corp.com" not in shown
    assert masking.start_scan(project, user=user).result["hits"] == {}


@pytest.mark.django_db
def test_masking_reaches_what_imported_rows_had_besides() -> None:
    project, user = make_project(), make_user()
    comparison = make_comparison(project)
    vote = make_judgment(comparison)
    meta = {
        "asked by": ["ann@corp.com", 7, {"ann@corp.com": None, "bob@corp.com": "known"}],
        "reference": "Write to ann@corp.com.",
    }
    Comparison.objects.filter(pk=comparison.pk).update(meta=meta)
    Judgment.objects.filter(pk=vote.pk).update(meta={"worker": "worker 3"})
    scan = masking.start_scan(project, user=user)
    assert (scan.result["hits"], scan.result["notes"]) == ({"email": 4}, 1)
    done = masking.start_masking(project, ["email"], user=user)
    assert (done.result["email"], done.result["notes"]) == (4, 1)
    comparison.refresh_from_db()
    vote.refresh_from_db()
    assert comparison.meta == {
        "asked by": ["[EMAIL]", 7, {"[EMAIL]": None, "[EMAIL] 2": "known"}],
        "reference": "Write to [EMAIL].",
    }
    assert vote.meta == {"worker": "worker 3"}


@pytest.mark.django_db
def test_prompts_that_become_the_same_stay_two() -> None:
    project, user = make_project(), make_user()
    prompts = [
        Prompt.objects.create(
            project=project,
            messages=(messages := [{"role": "user", "content": f"Who is {name}@corp.com?"}]),
            group="one",
            content_sha256=content_sha256(messages),
        )
        for name in ("ann", "bob", "eve")
    ]
    assert masking.start_masking(project, ["email"], user=user).status == DataJobStatus.DONE
    texts = [Prompt.objects.get(pk=prompt.pk).messages[0]["content"] for prompt in prompts]
    assert texts == ["Who is [EMAIL]?", "Who is [EMAIL 2]?", "Who is [EMAIL 3]?"]
    refresh_browse_index()
    assert PromptWords.objects.count() == 3


@pytest.mark.django_db
def test_nothing_is_masked_without_a_kind() -> None:
    with pytest.raises(DomainError):
        masking.start_masking(make_project(), [], user=make_user())
