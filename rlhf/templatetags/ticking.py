"""What people who are no staff are asked to tick."""

from __future__ import annotations

from django import template
from django.contrib.auth.models import User
from django.db.models import Count

from annotation.models import Project
from rlhf.models import BenchmarkAnswer, BenchmarkTicks

register = template.Library()


@register.simple_tag
def projects_to_tick_in(user: User) -> list[tuple[Project, int]]:
    """The open projects of a person whose people tick answers, each with how many this person has left."""
    ticked = BenchmarkTicks.objects.filter(annotator__user=user).by_newest_checklist()
    waiting = (
        BenchmarkAnswer.objects.filter(error="", item__dropped_at=None, item__data_set__ticked_in__members=user)
        .exclude(pk__in=ticked.values("answer"))
        .values("item__data_set__ticked_in")
        .annotate(left=Count("pk", distinct=True))
    )
    left = {row["item__data_set__ticked_in"]: row["left"] for row in waiting}
    if not left:
        return []
    return [(one, left[one.pk]) for one in Project.objects.filter(pk__in=left).order_by("name") if one.is_open]
