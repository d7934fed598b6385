"""How the work of a project goes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from django.contrib.auth.models import User
from django.http import HttpResponse
from django.shortcuts import render
from django.utils import timezone
from django.utils.formats import date_format
from django.utils.translation import gettext_lazy as _
from django.views.decorators.http import require_GET

from annotation.access import MemberRequest, require_role
from annotation.models import Conversation, Membership, Project, Role
from annotation.pace import STUCK_MINUTES, StrengthMix, holding, project_pace, strength_mixes, stuck
from annotation.protocol import Protocol, Scale
from annotation.services.rating_conversations import held_conversations

WORDS: dict[str, Any] = {
    "0": _("about the same"),
    "side": _("a side, ungraded"),
    "neither": _("neither is good"),
    "ranked": _("ranked"),
}
STEPS: dict[Scale, dict[str, Any]] = {
    Scale.SEVEN: {"1": _("slightly better"), "2": _("better"), "3": _("much better")},
    Scale.FOUR: {
        "1": _("negligibly better"),
        "2": _("slightly better"),
        "3": _("better"),
        "4": _("significantly better"),
    },
    Scale.EIGHT: {step: f"{step} / 4" for step in "1234"},
}
TONES = {"0": 0, "1": 1, "side": 2, "2": 2, "3": 3, "4": 4, "ranked": 3, "neither": 5}


@dataclass(frozen=True)
class MixRow:
    mix: StrengthMix
    parts: list[tuple[Any, int, float, int]]
    """Words, count, share of the batch in percent, and the depth of its colour."""


@require_role(Role.REVIEWER)
@require_GET
def progress(request: MemberRequest, project: Project) -> HttpResponse:
    pace, now = project_pace(project), timezone.now()
    mixes, mixes_as_of = strength_mixes(project)
    words = WORDS | STEPS.get(Protocol.of(project).scale, STEPS[Scale.SEVEN])
    names = dict(User.objects.filter(pk__in=pace.people).values_list("pk", "username"))
    members = set(Membership.objects.filter(project=project).values_list("user", flat=True))
    holders = holding(project)
    people = sorted(pace.people.items(), key=lambda row: -row[1].done)
    context = {
        "project": project,
        "pace": pace,
        "mixes": [
            MixRow(
                mix,
                [
                    (words.get(name, name), count, 100 * count / mix.total, TONES.get(name, 3))
                    for name, count in mix.counts.items()
                ],
            )
            for mix in mixes
        ],
        "mixes_as_of": mixes_as_of,
        "people": [(names.get(pk, "?"), work, pk in members) for pk, work in people],
        "talks_held": held_conversations(project),
        "talks_left": Conversation.objects.filter(project=project, source_a=None, ended_at=None).count(),
        "holding": len(holders),
        "stuck": stuck(holders, now),
        "skipping": [(names.get(pk, "?"), work) for pk, work in people if work.skips_a_lot],
        "stuck_minutes": STUCK_MINUTES,
        "chart": {
            "hours": [(date_format(hour, str(_("j M, H:i"))), count) for hour, count in pace.hours],
            "days": [(date_format(day, str(_("j M"))), count) for day, count in pace.days],
        },
    }
    return render(request, "people/progress.html", context)
