"""A reward model's card as a page: what its scores are worth, beside how far people agree."""

from __future__ import annotations

from typing import Any

from django.contrib import messages
from django.http import HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils.functional import Promise
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _
from django.views.decorators.http import require_GET, require_POST

from annotation.models import Project
from annotation.services import DomainError
from rlhf.models import Checkpoint, CheckpointKind, RewardCard
from rlhf.services.uncertainty import request_uncertainties
from rlhf.views.access import StaffRequest, as_sentence, staff_required

VOTERS_SHOWN = 30
GATES: dict[str, str | Promise] = {
    "no_signal": _("Accuracy is below 0.55: broken, or the data hold no signal. Do not optimise against it."),
    "too_good": _("Accuracy above 0.8 on human data is suspect: look for prompts that leaked, or a shortcut."),
    "above_people": _(
        "It agrees with single people more often than they agree with each other. A model that has learnt what most "
        "people say can do that; one that has seen the answers does it, too: look for prompts that leaked."
    ),
    "few_pairs": _("Fewer than 200 pairs: accuracy is known to about ±7 points only."),
    "poorly_calibrated": _("The calibration error is above 0.10: its probabilities mislead; its order may hold."),
    "well_calibrated": _("Well calibrated: the error is at most 0.05."),
    "likes_length": _(
        "It prefers the longer response 15 points more, or less, often than people did. Balance lengths in training."
    ),
    "likes_padding": _("Most responses score higher when they are said twice: a policy will learn to repeat itself."),
    "inconsistent": _(
        "A score depends on what it is scored with. Padding or the chat template is wrong; do not use it."
    ),
}
# The plot's square, in its own units.
_SIDE, _FROM = 300.0, 40.0


@staff_required
@require_GET
def reward_card(request: StaffRequest, pk: int) -> HttpResponse:
    checkpoint = get_object_or_404(
        Checkpoint.objects.select_related("job__snapshot__project"), pk=pk, kind=CheckpointKind.REWARD
    )
    cards = list(RewardCard.objects.filter(checkpoint=checkpoint).order_by("data_name", "-made_at"))
    wanted = request.GET.get("card", "")
    card = next((one for one in cards if str(one.pk) == wanted), cards[0] if cards else None)
    values: dict[str, Any] = card.values if card else {}
    has_pairs = bool(values.get("pairs"))
    context = {
        "checkpoint": checkpoint,
        "cards": cards,
        "card": card,
        "values": values,
        "has_pairs": has_pairs,
        "gates": [(gate["tone"], GATES[gate["code"]]) for gate in values.get("gates", []) if gate["code"] in GATES],
        "points": [_point(cell) for cell in values["calibration"]["bins"]] if has_pairs else [],
        "ticks": [(_place(share), share) for share in (0.5, 0.75, 1.0)],
        "rules": [(_height(share), share) for share in (0.0, 0.25, 0.5, 0.75, 1.0)],
        "voters": values.get("by_voter", [])[:VOTERS_SHOWN],
        "projects": Project.objects.filter(is_open=True).order_by("name"),
    }
    return render(request, "rlhf/reward_card.html", context)


@staff_required
@require_POST
def rate_uncertainty(request: StaffRequest, pk: int) -> HttpResponse:
    """Have a worker say what the model cannot tell apart in `project`, and go back to the card."""
    checkpoint = get_object_or_404(Checkpoint, pk=pk, kind=CheckpointKind.REWARD)
    project = get_object_or_404(Project, slug=request.POST.get("project", ""))
    try:
        request_uncertainties(project, checkpoint, user=request.user)
    except DomainError as error:
        messages.error(request, as_sentence(error))
    else:
        messages.success(
            request,
            gettext("A worker scores what is open in %(name)s. What came of it stands in the project’s journal.")
            % {"name": project.name},
        )
    return redirect("reward_card", pk=checkpoint.pk)


def _place(confidence: float) -> float:
    return round(_FROM + (confidence - 0.5) * 2 * _SIDE, 1)


def _height(accuracy: float) -> float:
    """Accuracy runs from 0 at the bottom to 1 at the top."""
    return round(10 + (1 - accuracy) * _SIDE, 1)


def _point(cell: dict[str, float]) -> dict[str, float]:
    return {
        "x": _place(cell["confidence"]),
        "y": _height(cell["accuracy"]),
        "low": _height(cell["lower"]),
        "high": _height(cell["upper"]),
    } | cell
