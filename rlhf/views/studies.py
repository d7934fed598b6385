"""Human evaluation of a project: asking for it, and what it found."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpResponse, HttpResponseBase, JsonResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils.functional import Promise
from django.utils.http import content_disposition_header
from django.utils.translation import gettext as _
from django.utils.translation import ngettext
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from annotation import services
from annotation.access import MemberRequest, is_at_least, require_role
from annotation.models import Project, Role, Study, StudyKind
from annotation.services import DomainError
from annotation.study_figures import (
    AXES,
    MEASURES,
    Slice,
    coverage_of,
    figures_of,
    gsb_figures,
    rubric_figures,
    say_win_rate,
    study_rows,
)
from annotation.win_rates import WinRate
from rlhf.models import Checkpoint
from rlhf.studies import answered, chosen_prompts, prompts_to_add
from rlhf.study_form import StudyForm
from rlhf.views.access import as_sentence
from rlhf.views.csv_files import csv_response

ROWS_SHOWN = 30


@require_role(Role.REVIEWER)
@require_http_methods(["GET", "POST"])
def project_studies(request: MemberRequest, project: Project) -> HttpResponse:
    may_ask = is_at_least(request.role, Role.ADMIN)
    if request.method == "POST" and not may_ask:
        raise PermissionDenied
    given = {name: request.GET[name] for name in ("kind", "source", "against") if name in request.GET}
    form = StudyForm(project, request.POST or None, initial={"kind": StudyKind.GSB.value} | given)
    if request.method == "POST" and form.is_valid():
        try:
            study = _create(project, form, request)
        except DomainError as error:
            form.add_error(None, as_sentence(error))
        else:
            messages.success(request, _("%(name)s waits in the people’s queue, blind.") % {"name": study.name})
            return redirect("project_study", project.slug, study.pk)
    studies = Study.objects.filter(project=project).select_related("source", "against").order_by("-created_at", "-pk")
    context = {
        "project": project,
        "form": form,
        "may_ask": may_ask,
        "is_open": bool(given or form.errors),
        "rows": [(study, coverage_of(study)) for study in studies],
    }
    return render(request, "rlhf/studies.html", context, status=422 if form.errors else 200)


def _create(project: Project, form: StudyForm, request: MemberRequest) -> Study:
    data, selection = form.cleaned_data, form.selection()
    sources = [source for source in (data["source"], data["against"]) if source]
    return services.create_study(
        project=project,
        name=data["name"],
        kind=StudyKind(data["kind"]),
        source=data["source"],
        against=data["against"],
        prompts=prompts_to_add(project, selection, sources),
        judgments_per_item=data["judgments_per_item"],
        selection=selection,
        by=request.user,
    )


# ── One study ────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Axis:
    """The slices of one kind of label."""

    name: str
    label: str | Promise
    slices: list[Slice[Any]]


@require_role(Role.REVIEWER)
@require_GET
def project_study(request: MemberRequest, project: Project, study_id: int) -> HttpResponse:
    study = _find(project, study_id)
    chosen = chosen_prompts(project, study.selection, study.sources)
    missing = [(source, chosen.count() - answered(chosen, [source]).count()) for source in study.sources]
    may_ask = is_at_least(request.role, Role.ADMIN)
    context: dict[str, Any] = {
        "project": project,
        "study": study,
        "may_ask": may_ask,
        "coverage": coverage_of(study),
        "checkpoints": {one.source_id: one for one in Checkpoint.objects.filter(source__in=study.sources)},
        "missing": [(source, count) for source, count in missing if count],
        "to_add": len(prompts_to_add(project, study.selection, study.sources, study=study)),
        "rows": list(study_rows(study, ROWS_SHOWN))[::-1] if may_ask else [],
        "chosen": _chosen_words(study),
    }
    if study.kind == StudyKind.GSB:
        assert study.against is not None
        found = gsb_figures(study)
        context |= {
            "whole": found.whole,
            "agreement": found.agreement,
            "row_count": found.whole.judgments,
            "bars": _bars(found.whole),
            "sentence": say_win_rate(found.whole, study.source.name, study.against.name),
            "axes": _axes(found.slices),
        }
    else:
        marked = rubric_figures(study)
        context |= {
            "marked": marked,
            "row_count": sum(one.ratings for one in marked.whole),
            "measures": [
                (label, [one.shares.get(name) for one in marked.whole], marked.agreement.get(name))
                for name, label in MEASURES.items()
            ],
            "axes": _axes(marked.slices),
        }
    return render(request, "rlhf/study.html", context)


def _find(project: Project, study_id: int) -> Study:
    return get_object_or_404(
        Study.objects.select_related("project", "source", "against"), pk=study_id, project=project
    )


def _axes(slices: Iterable[Slice[Any]]) -> list[Axis]:
    return [Axis(name, AXES[name], list(parts)) for name, parts in groupby(slices, lambda part: part.axis)]


def _bars(found: WinRate) -> list[tuple[str, str, int, float, float]]:
    """Kind, word, count, start and width in percent of the votes."""
    bars, start = [], 0.0
    words = (("good", _("good"), found.wins), ("same", _("same"), found.ties), ("bad", _("bad"), found.losses))
    for kind, word, count in words:
        width = 100 * count / found.judgments if found.judgments else 0.0
        bars.append((kind, word, count, start, width))
        start += width
    return bars


def _chosen_words(study: Study) -> list[str]:
    chosen = study.selection
    words = []
    if chosen.get("task"):
        words.append(_("task %(value)s") % {"value": chosen["task"]})
    if chosen.get("tag"):
        words.append(_("tag %(value)s") % {"value": chosen["tag"]})
    if chosen.get("held_out"):
        words.append(_("held out of training"))
    if chosen.get("at_most"):
        words.append(_("at most %(value)s prompts") % {"value": f"{chosen['at_most']:,}"})
    return words or [_("all prompts")]


@require_role(Role.ADMIN)
@require_POST
def project_study_act(request: MemberRequest, project: Project, study_id: int) -> HttpResponse:
    study = _find(project, study_id)
    if request.POST.get("action") == "extend":
        prompts = prompts_to_add(project, study.selection, study.sources, study=study)
        count = services.extend_study(study, prompts, by=request.user)
        added = ngettext("%(count)s item is added.", "%(count)s items are added.", count) % {"count": count}
        messages.success(request, added)
    elif request.POST.get("action") == "close":
        services.close_study(study, by=request.user)
        messages.success(request, _("Nothing of it is handed out any more; what people said stays and counts."))
    return redirect("project_study", project.slug, study.pk)


@require_role(Role.REVIEWER)
@require_GET
def project_study_file(
    request: MemberRequest, project: Project, study_id: int, kind: str, suffix: str
) -> HttpResponseBase:
    """Its figures as JSON, or the rows that they rest on as CSV or JSON: these name single responses' models."""
    study = _find(project, study_id)
    if kind == "rows" and not is_at_least(request.role, Role.ADMIN):
        raise PermissionDenied(_("Only admins of the project see the rows: these say which model wrote what."))
    name = f"{study.name}-{kind}.{suffix}"
    if (kind, suffix) == ("figures", "json"):
        return _named(JsonResponse(figures_of(study)), name)
    if (kind, suffix) == ("rows", "json"):
        return _named(JsonResponse(list(study_rows(study)), safe=False), name)
    if (kind, suffix) == ("rows", "csv"):
        return _named(csv_response(study_rows(study)), name)
    raise Http404("There is no such file.")


def _named(response: HttpResponseBase, name: str) -> HttpResponseBase:
    response["Content-Disposition"] = content_disposition_header(True, name)
    return response
