"""How a project works: its protocol, its queue, whether it is open; and its guidelines with all their versions."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils.translation import gettext as _
from django.views.decorators.http import require_http_methods, require_POST

from annotation import services
from annotation.access import MemberRequest, require_role
from annotation.markdown import render_markdown
from annotation.models import Event, EventKind, GuidelineVersion, Judgment, Project, Role
from annotation.pages.protocol_form import ProtocolForm, QueueForm
from annotation.protocol import PRESETS, BrokenProtocolError, Protocol
from annotation.services import ConflictError, DomainError
from annotation.services.projects import SETTINGS
from annotation.text_diff import diff_lines

MAX_GUIDELINES = 100_000


def _fingerprint(project: Project) -> str:
    """Of the settings as they stand: a form that was filled in over other ones says so instead of undoing them."""
    stand = json.dumps({name: getattr(project, name) for name in SETTINGS}, sort_keys=True)
    return hashlib.sha256(stand.encode()).hexdigest()[:16]


@require_role(Role.ADMIN)
@require_http_methods(["GET", "POST"])
def project_settings(request: MemberRequest, project: Project) -> HttpResponse:
    """`?preset=` fills the form with a starting point; nothing is stored before it is saved."""
    stored, broken = _stored_protocol(project)
    preset = request.GET.get("preset", "")
    data = request.POST or None
    protocol_form = ProtocolForm(data, start=PRESETS[preset][1] if preset in PRESETS and not data else stored)
    queue_form = QueueForm(data, initial={name: getattr(project, name) for name in SETTINGS})
    status = 200
    if request.method == "POST":
        fits = [form.is_valid() for form in (protocol_form, queue_form)]
        if "preview" in request.POST:
            pass
        elif not all(fits):
            status = 422
        elif request.POST.get("seen") != _fingerprint(project):
            queue_form.add_error(None, _changed_meanwhile(project))
            status = 409
        else:
            changes, before = dict(queue_form.cleaned_data), project.judgments_per_comparison
            asks_existing = changes.pop("ask_of_existing")
            try:
                changed = services.update_settings(project, request.user, protocol=protocol_form.protocol, **changes)
                if asks_existing and "judgments_per_comparison" in changed:
                    services.ask_of_existing(project, before=before, by=request.user)
            except DomainError as refused:
                queue_form.add_error(None, _as_sentence(refused))
                status = 422
            else:
                messages.success(request, _("The settings are saved.") if changed else _("Nothing was changed."))
                return redirect("project_settings", slug=project.slug)
    context = {
        "project": project,
        "form": queue_form,
        "protocol_form": protocol_form,
        "broken": broken,
        "preset": preset,
        "presets": [(name, label) for name, (label, _protocol) in PRESETS.items()],
        "protocol": protocol_form.protocol,
        "seen": _fingerprint(project),
        "is_judged": Judgment.objects.filter(comparison__project=project).exists(),
    }
    return render(request, "people/settings.html", context, status=status)


def _stored_protocol(project: Project) -> tuple[Protocol, str]:
    """What of it can be read, and a sentence where that is not all: this page is where it is mended."""
    try:
        return Protocol.of(project), ""
    except BrokenProtocolError as broken:
        return Protocol.readable_part(project.protocol), str(broken)


def _changed_meanwhile(project: Project) -> str:
    last = (
        Event.objects.filter(project=project, kind=EventKind.SETTINGS).select_related("user").order_by("-pk").first()
    )
    who = last.user.username if last and last.user else _("Somebody")
    return _(
        "%(who)s changed the settings while you had this page open. Nothing was saved. What you entered is still "
        "here: look it over, and save again to put it in place of theirs."
    ) % {"who": who}


def _as_sentence(error: Exception) -> str:
    text = str(error).removeprefix("protocol: ")
    return text[:1].upper() + text[1:]


@require_role(Role.ADMIN)
@require_POST
def protocol_preview(request: MemberRequest, project: Project) -> HttpResponse:
    """The vote bar as the form describes it at this moment, for a page that is watching itself."""
    form = ProtocolForm(request.POST, start=_stored_protocol(project)[0])
    if not form.is_valid():
        return HttpResponse(status=204)
    return render(request, "people/_protocol_preview.html", {"protocol": form.protocol})


@require_role(Role.ADMIN)
@require_POST
def project_open(request: MemberRequest, project: Project) -> HttpResponse:
    """Open or close the project: a closed one hands out nothing and takes back what is being judged."""
    is_open = request.POST.get("is_open") == "true"
    services.update_settings(project, request.user, is_open=is_open)
    if is_open:
        messages.success(request, _("The project is open: its comparisons are handed out."))
    else:
        messages.success(
            request, _("The project is closed: nothing more is handed out. What is on a screen can still be judged.")
        )
    return redirect("project_settings", slug=project.slug)


# ── Guidelines ───────────────────────────────────────────────────────────────────────────────────────────────────


@require_role(Role.ANNOTATOR)
@require_http_methods(["GET", "POST"])
def guidelines(request: MemberRequest, project: Project) -> HttpResponse:
    """Everybody in the project reads them and what changed; admins write them."""
    if request.method == "POST":
        if request.role != Role.ADMIN:
            return redirect("project_guidelines", slug=project.slug)
        return _write_guidelines(request, project)
    text = project.guidelines
    return _guidelines_page(request, project, text=text, based_on=project.guideline_version)


def _write_guidelines(request: MemberRequest, project: Project) -> HttpResponse:
    text, given = request.POST.get("text", ""), request.POST.get("based_on", "")
    based_on = int(given) if given.isdecimal() else project.guideline_version
    if "preview" in request.POST:
        return _guidelines_page(request, project, text=text, based_on=based_on, preview=True)
    if len(text) > MAX_GUIDELINES:
        refused = _("The guidelines are longer than %(most)s characters. Nothing was saved; shorten them.")
        return _guidelines_page(
            request, project, text=text, based_on=based_on, refused=refused % {"most": f"{MAX_GUIDELINES:,}"}
        )
    before = project.guideline_version
    try:
        version = services.edit_guidelines(project, text, request.user, based_on=based_on)
    except ConflictError as error:
        project.refresh_from_db()
        return _guidelines_page(
            request, project, text=text, based_on=project.guideline_version, refused=str(error), status=409
        )
    if version == before:
        messages.success(request, _("Nothing was changed."))
    else:
        messages.success(
            request, _("Version %(version)s is in force. Judgments from now on say so.") % {"version": version}
        )
    return redirect("project_guidelines", slug=project.slug)


def _guidelines_page(
    request: MemberRequest,
    project: Project,
    *,
    text: str,
    based_on: int,
    preview: bool = False,
    refused: str = "",
    status: int = 0,
) -> HttpResponse:
    versions = list(GuidelineVersion.objects.filter(project=project).select_related("created_by").order_by("-version"))
    context: dict[str, Any] = {
        "project": project,
        "text": text,
        "based_on": based_on,
        "rendered": render_markdown(text).html if text else "",
        "is_preview": preview,
        "refused": refused,
        "versions": versions,
        "diff": None,
        "may_edit": request.role == Role.ADMIN,
    }
    texts = {version.version: version.text for version in versions}
    if "to" in request.GET:
        old, new = _version(request, "from"), _version(request, "to")
        if new not in texts or (old and old not in texts):
            raise Http404
        context |= {"diff": diff_lines(texts.get(old, ""), texts[new]), "old": old, "new": new}
    return render(request, "people/guidelines.html", context, status=status or (422 if refused else 200))


def _version(request: HttpRequest, name: str) -> int:
    given = request.GET.get(name, "")
    if not given.isdecimal():
        raise Http404
    return int(given)


@require_role(Role.ADMIN)
@require_POST
def guidelines_preview(request: MemberRequest, project: Project) -> HttpResponse:
    """The text as people will read it, for the page that is editing it."""
    text = request.POST.get("text", "")[:MAX_GUIDELINES]
    return render(request, "people/_guidelines_text.html", {"rendered": render_markdown(text).html if text else ""})
