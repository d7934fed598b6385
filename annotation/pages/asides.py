"""What the compare page asks for beside votes: the guidelines in force, a response as it was written, flags."""

from __future__ import annotations

from uuid import UUID

from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404
from django.utils.translation import gettext as _
from django.views.decorators.http import require_GET

from annotation import services
from annotation.blind import shown_texts
from annotation.markdown import render_markdown
from annotation.models import Annotator, Project
from annotation.pages.compare import back_to_work, on_assignment, signed_in


@require_GET
@signed_in
def guidelines_text(request: HttpRequest, slug: str) -> HttpResponse:
    """The wording in force, for a page that holds an older one."""
    project = get_object_or_404(Project, slug=slug, members=request.user.pk)
    text = render_markdown(project.guidelines).html
    return HttpResponse(text, headers={"X-Guideline-Version": str(project.guideline_version)})


@require_GET
@signed_in
def response_text(request: HttpRequest, assignment_id: UUID, position: int) -> HttpResponse:
    """A response as it was written, for copying and editing; only to whom its comparison was given."""
    annotator = services.annotator_for(request.user)  # type: ignore[arg-type]
    try:
        texts = shown_texts(assignment_id, annotator.pk)
        text = texts[position]
    except (services.AssignmentNotFoundError, IndexError):
        raise Http404 from None
    return HttpResponse(text, content_type="text/plain; charset=utf-8")


@on_assignment
def flag(request: HttpRequest, annotator: Annotator, assignment_id: UUID) -> HttpResponse:
    """Something is wrong with the comparison itself; it stays on the screen."""
    reason = request.POST.get("reason", "")
    flagged = services.flag_comparison(assignment_id=assignment_id, annotator=annotator, reason=reason)
    if request.headers.get("X-Requested-With") == "fetch":
        return HttpResponse(status=204)
    messages.success(request, _("Flagged. Whoever runs the project looks at it; you can go on judging it."))
    return back_to_work(request, flagged.comparison.project)
