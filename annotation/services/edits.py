"""What people do to the texts: passages that they mark as wrong, and the better response made better still."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from django.utils.translation import gettext as _
from rapidfuzz.distance import Levenshtein

from annotation.answer import Answer
from annotation.content_order import Verdict
from annotation.errors import DomainError
from annotation.models import Annotator, Comparison, Edit, ErrorSpan, Judgment, Preference, Project, Response
from annotation.protocol import Demand, Protocol
from annotation.services.texts import add_written_response


class EditedText(NamedTuple):
    original: Response
    text: str


def read_passages(answer: Answer, comparison: Comparison, order: Sequence[int]) -> list[ErrorSpan]:
    """The marked passages of an answer that read_verdict let through, without their judgment; raises DomainError."""
    responses = _responses(comparison)
    passages = []
    for span in answer.spans:
        response = responses[order[span.position]]
        if span.end > len(response.text):
            raise DomainError(
                _("spans: a passage ends after the end of response %(name)s; mark it again.")
                % {"name": "ABCDEFGHI"[span.position]}
            )
        passages.append(ErrorSpan(response=response, start=span.start, end=span.end, kind=span.kind, note=span.note))
    return passages


def store_passages(judgment: Judgment, passages: Sequence[ErrorSpan]) -> None:
    for passage in passages:
        passage.judgment = judgment
    if passages:
        ErrorSpan.objects.bulk_create(passages)


def read_edit(answer: Answer, protocol: Protocol, comparison: Comparison, verdict: Verdict) -> EditedText | None:
    """The better response and its edited text; None where nothing was changed. Raises DomainError where it must be."""
    if not answer.edited_text.strip():
        return None
    original = comparison.response_a if verdict.preference == Preference.A else comparison.response_b
    if answer.edited_text.strip() != original.text.strip():
        return EditedText(original, answer.edited_text)
    if protocol.edit_demand == Demand.REQUIRED:
        raise DomainError(_("edited_text: the text is unchanged; improve it and save again."))
    return None


def write_response(edit: EditedText, comparison: Comparison, project: Project, author: Annotator) -> Response:
    """The edited text as a response by people; see add_written_response on locks."""
    return add_written_response(comparison.prompt_id, project, edit.text, author=author)


def store_edit(judgment: Judgment, edit: EditedText, edited: Response, *, seconds: int) -> Edit:
    return Edit.objects.create(
        judgment=judgment,
        original=edit.original,
        edited=edited,
        seconds_spent=seconds,
        edit_distance=Levenshtein.distance(edit.original.text, edit.text),
    )


def _responses(comparison: Comparison) -> list[Response]:
    """In content order."""
    further = comparison.further_responses.select_related("response") if comparison.response_count > 2 else []
    return [comparison.response_a, comparison.response_b, *(place.response for place in further)]
