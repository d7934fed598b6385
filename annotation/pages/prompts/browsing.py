"""Lists of prompts and comparisons, and one prompt with everything that belongs to it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any
from urllib.parse import urlencode

from django.contrib import messages
from django.http import HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _
from django.views.decorators.http import require_GET, require_http_methods

from annotation import browse
from annotation.access import MemberRequest, require_role
from annotation.browse import ComparisonFilter, Cursor, PromptFilter
from annotation.duplicates import passages, similarity
from annotation.markdown import render_markdown
from annotation.models import Batch, DataJob, JudgedState, Project, Prompt, Response, Role, Tally
from annotation.pages.prompts.forms import EditForm, PromptForm
from annotation.pages.said import marked_passages
from annotation.search_terms import compile_search
from annotation.services import DomainError
from annotation.services.prompts import last_edit, start_edit

RESPONSES_SHOWN = 50
COMPARISONS_SHOWN = 50
NEARLY_THE_SAME = 0.9

Choices = list[tuple[str, str | Promise, int]]
"""(value, label, count)"""

FILTERS: dict[str, str | Promise] = {
    "task": _("Task"),
    "lang": _("Language"),
    "skill": _("Skill"),
    "topic": _("Topic"),
    "tag": _("Tag"),
    "state": _("Judged"),
    "batch": _("Batch"),
}


def choices_of(project: Project, scope: Tally.Scope, names: list[str]) -> dict[str, Choices]:
    """What each filter can be set to, with how many there are; two queries."""
    values = browse.tallied_values(project, scope)
    batches = dict(Batch.objects.filter(project=project).order_by("-pk").values_list("pk", "name")[:200])
    choices: dict[str, Choices] = {}
    for name in names:
        if name == "state":
            found: Choices = [(value, JudgedState(int(value)).label, count) for value, count in sorted(values[name])]
        elif name == "batch":
            counts = {int(value): count for value, count in values[name]}
            found = [(str(pk), label, counts[pk]) for pk, label in batches.items() if pk in counts]
        else:
            found = [(value or browse.NOT_SET, value or _("not set"), count) for value, count in values[name]]
        choices[name] = found
    choices["live"] = [("", "", count) for _value, count in values["live"]]
    choices["archived"] = [("", "", count) for _value, count in values["archived"]]
    return choices


def filter_fields(choices: dict[str, Choices], names: list[str], chosen: dict[str, str]) -> list[dict[str, Any]]:
    """One select each; what is filtered by stays choosable even where it has become rare."""
    fields = []
    for name in names:
        options = choices[name]
        value = chosen.get(name, "")
        if value and value not in {option for option, _label, _count in options}:
            label = JudgedState(int(value)).label if name == "state" and value in "01234" else value
            options = [*options, (value, label, 0)]
        if len(options) > 1 or value or (options and options[0][0] != browse.NOT_SET):
            fields.append({"name": name, "label": FILTERS[name], "options": options, "value": value})
    return fields


def links(params: dict[str, str], page: browse.Page[Any]) -> dict[str, str]:
    """Addresses of the neighbouring pages, empty at either end."""
    return {
        "newer": urlencode(params | {"before": str(page.newer)}) if page.newer is not None else "",
        "older": urlencode(params | {"after": str(page.older)}) if page.older is not None else "",
    }


@require_role(Role.ADMIN)
@require_GET
def prompts(request: MemberRequest, project: Project) -> HttpResponse:
    return prompts_page(request, project, request.GET.dict())


def prompts_page(
    request: MemberRequest,
    project: Project,
    params: dict[str, str],
    *,
    form: EditForm | None = None,
    status: int = 200,
) -> HttpResponse:
    """The list that the parameters of its address describe, with an edit that was refused where there is one."""
    given, cursor = PromptFilter.of(params), Cursor.of(params)
    search = compile_search(given.query) if given.query else None
    is_searchable = search is None or bool(search.words)
    names = list(FILTERS)
    choices = choices_of(project, Tally.Scope.PROMPT, names)
    page: browse.Page[browse.PromptRow] = browse.Page([])
    count = browse.Count(0)
    if is_searchable:
        page = browse.prompt_page(project, given, cursor, search=search)
        count = browse.prompt_count(project, given, search=search)
    others = replace(given, archived=not given.archived)
    context = {
        "project": project,
        "given": given,
        "page": page,
        "count": count,
        "links": links(given.params(), page),
        "params": given.params(),
        "is_filtered": given != PromptFilter(archived=given.archived),
        "is_searchable": is_searchable,
        "filters": filter_fields(choices, names, given.params()),
        "live_count": sum(count for _value, _label, count in choices["live"]),
        "archived_count": sum(count for _value, _label, count in choices["archived"]),
        "archive_link": urlencode(others.params()),
        "form": form or EditForm(),
        "chosen": {int(pk) for pk in request.POST.getlist("ids") if pk.isdecimal() and len(pk) < 19},
        "index": browse.index_state(),
        "last_edit": last_edit(project),
        "running": running_job(project),
        "known": {name: [value for value, _label, _count in choices[name] if value != browse.NOT_SET] for name in
                  ("task", "lang", "skill", "topic", "tag")},
    }  # fmt: skip
    return render(request, "prompts/list.html", context, status=status)


def running_job(project: Project) -> DataJob | None:
    return DataJob.objects.filter(project=project, finished_at=None).first()


@require_role(Role.ADMIN)
@require_GET
def comparisons(request: MemberRequest, project: Project) -> HttpResponse:
    params = request.GET.dict()
    given: ComparisonFilter = ComparisonFilter.of(params)
    names = ["state", "batch", "lang", "skill"]
    choices = choices_of(project, Tally.Scope.COMPARISON, names)
    page = browse.comparison_page(project, given, Cursor.of(params))
    context = {
        "project": project,
        "given": given,
        "page": page,
        "count": browse.comparison_count(project, given),
        "links": links(given.params(), page),
        "is_filtered": given != ComparisonFilter(),
        "filters": filter_fields(choices, names, given.params()),
        "index": browse.index_state(),
    }
    return render(request, "prompts/comparisons.html", context)


@require_role(Role.ADMIN)
@require_http_methods(["GET", "POST"])
def prompt(request: MemberRequest, project: Project, prompt_id: int) -> HttpResponse:
    """A prompt with its responses, who wrote them and how, and its comparisons with what was said of them."""
    prompt = get_object_or_404(Prompt, pk=prompt_id, project=project)
    form = PromptForm(request.POST or None, initial=PromptForm.initial_of(prompt))
    if request.method == "POST" and form.is_valid():
        edit = form.edit_of(prompt)
        try:
            if not edit.does_nothing:
                start_edit(project, edit, ids=[prompt.pk], user=request.user)
        except DomainError as refused:
            form.add_error(None, str(refused))
        else:
            messages.success(request, _("Saved."))
            return redirect("prompt_detail", slug=project.slug, prompt_id=prompt.pk)
    responses = list(
        Response.objects.filter(prompt=prompt).select_related("source").order_by("pk")[: RESPONSES_SHOWN + 1]
    )
    shown = responses[:RESPONSES_SHOWN]
    pairs = {
        pk: (first, second)
        for pk, first, second in prompt.comparisons.order_by("pk").values_list("pk", "response_a", "response_b")[
            : COMPARISONS_SHOWN + 1
        ]
    }
    compared = browse.comparison_rows(list(pairs)[:COMPARISONS_SHOWN])
    numbers = {response.pk: number for number, response in enumerate(shown, 1)}
    hashes = {response.pk: passages(response.text) for response in shown}
    rows = []
    for row in compared:
        first, second = pairs[row.id]
        share = similarity(hashes[first], hashes[second]) if first in hashes and second in hashes else 0.0
        alike = int(100 * share) if share >= NEARLY_THE_SAME else None
        rows.append((row, numbers.get(first, "…"), numbers.get(second, "…"), alike))
    marked = marked_passages(shown)
    context = {
        "project": project,
        "prompt": prompt,
        "messages_": [(message["role"], render_markdown(message["content"]).html) for message in prompt.messages],
        "responses": [
            (number, response, render_markdown(response.text).html, marked.get(response.pk))
            for number, response in enumerate(shown, 1)
        ],
        "has_more_responses": len(responses) > RESPONSES_SHOWN,
        "comparisons": rows,
        "has_more_comparisons": len(pairs) > COMPARISONS_SHOWN,
        "form": form,
    }
    return render(request, "prompts/detail.html", context, status=422 if form.errors else 200)
