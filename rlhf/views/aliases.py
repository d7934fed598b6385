"""Aliases: what `champion` stands for, what it stood for, and moving it."""

from __future__ import annotations

from django.contrib import messages
from django.http import HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils.http import url_has_allowed_host_and_scheme
from django.utils.translation import gettext
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from annotation.models import Project
from annotation.services import DomainError
from rlhf.forms import AliasForm, GateForm
from rlhf.models import AliasMove, Checkpoint, PromotionGate
from rlhf.services import move_alias, roll_back_alias
from rlhf.services.aliases import remove_gate, set_gate
from rlhf.views.access import StaffRequest, as_sentence, staff_required

MOVES_SHOWN = 200
_WITH_NAMES = ("project", "previous", "checkpoint", "moved_by")


@staff_required
@require_GET
def alias_list(request: StaffRequest) -> HttpResponse:
    moves = AliasMove.objects.select_related(*_WITH_NAMES)
    context = {
        "current": moves.current(),
        "gates": PromotionGate.objects.select_related("project", "benchmark", "changed_by"),
        "moves": moves.order_by("-moved_at", "-pk")[:MOVES_SHOWN],
        "most": MOVES_SHOWN,
    }
    return render(request, "rlhf/alias_list.html", context)


@staff_required
@require_POST
def checkpoint_alias(request: StaffRequest, pk: int) -> HttpResponse:
    """Let an alias stand for this checkpoint, or (`remove`) for nothing."""
    checkpoint = get_object_or_404(Checkpoint, pk=pk)
    form = AliasForm(request.POST)
    if not form.is_valid():
        for field, errors in form.errors.items():
            messages.error(request, f"{form[field].label}: {errors[0]}")
    else:
        target = None if "remove" in request.POST else checkpoint
        try:
            if form.cleaned_data["despite_gate"] and not request.user.is_superuser:
                raise DomainError(gettext("only an administrator may move an alias in spite of its gate"))
            move = move_alias(**(form.cleaned_data | {"checkpoint": target, "by": request.user}))
        except DomainError as error:
            messages.error(request, as_sentence(error))
        else:
            _say(request, move)
    return redirect("checkpoint_detail", pk=pk)


@staff_required
@require_http_methods(["GET", "POST"])
def promotion_gate(request: StaffRequest, pk: int | None = None) -> HttpResponse:
    """The thresholds of an alias: set them, change them, take them away (`remove`)."""
    gate = get_object_or_404(PromotionGate, pk=pk) if pk else None
    if gate and "remove" in request.POST:
        said = gettext("%(alias)s moves without a gate from now on.") % {"alias": gate}
        remove_gate(gate)
        messages.success(request, said)
        return redirect("alias_list")
    if request.method == "POST":
        form = GateForm(request.POST, gate=gate)
        if form.is_valid():
            try:
                stored = set_gate(form.as_gate(), by=request.user)
            except DomainError as error:
                form.add_error(None, as_sentence(error))
            else:
                messages.success(request, gettext("%(alias)s has a gate now.") % {"alias": stored})
                return redirect("alias_list")
    else:
        form = GateForm(gate=gate)
    return render(
        request,
        "rlhf/promotion_gate.html",
        {"form": form, "gate": gate},
        status=422 if form.errors else 200,
    )


@staff_required
@require_POST
def alias_back(request: StaffRequest) -> HttpResponse:
    """Undo the newest move of an alias."""
    slug = request.POST.get("project", "")
    project = get_object_or_404(Project, slug=slug) if slug else None
    try:
        _say(request, roll_back_alias(request.POST.get("alias", ""), project=project, by=request.user))
    except DomainError as error:
        messages.error(request, as_sentence(error))
    following = request.POST.get("next", "")
    if url_has_allowed_host_and_scheme(following, allowed_hosts=None):
        return redirect(following)
    return redirect("alias_list")


def _say(request: StaffRequest, move: AliasMove) -> None:
    if move.checkpoint:
        said = gettext("%(alias)s stands for %(name)s now.") % {"alias": move, "name": move.checkpoint.name}
    else:
        said = gettext("%(alias)s stands for nothing now.") % {"alias": move}
    messages.success(request, said)
