"""Who works where: projects, members and their roles."""

from __future__ import annotations

from django.contrib.auth.models import User
from django.db import transaction
from django.db.models import QuerySet
from django.utils import timezone

from annotation.models import Annotator, Assignment, AssignmentStatus, Project
from annotation.services.queue import release_assignments


def annotator_for(user: User) -> Annotator:
    """The annotator that stands for a signed-in user, made on first need."""
    annotator, _ = Annotator.objects.get_or_create(user=user, defaults={"name": user.get_username()})
    return annotator


def projects_for(user: User) -> QuerySet[Project]:
    """Projects whose comparisons the user may judge."""
    return Project.objects.filter(members=user.pk, is_open=True).order_by("name")


def create_project(*, slug: str, name: str, guidelines: str = "", judgments_per_comparison: int = 1) -> Project:
    """Make a project, or give the one that has this slug."""
    project, _ = Project.objects.get_or_create(
        slug=slug,
        defaults={
            "name": name,
            "guidelines": guidelines,
            "judgments_per_comparison": judgments_per_comparison,
        },
    )
    return project


def add_member(project: Project, user: User) -> None:
    """Let a user judge the project's comparisons."""
    project.members.add(user.pk)


def remove_member(project: Project, user: User) -> int:
    """Take a user off the project and give back what they hold there; gives how many. Their judgments stay."""
    with transaction.atomic():
        project.members.remove(user.pk)
        annotator = Annotator.objects.filter(user=user.pk).first()
        return release_assignments(annotator=annotator, project=project) if annotator else 0


def progress(annotator: Annotator, project: Project) -> dict[str, int]:
    """How many comparisons the annotator has judged here, today and in all."""
    judged = Assignment.objects.filter(annotator=annotator, project=project, status=AssignmentStatus.SUBMITTED)
    today = timezone.localtime().replace(hour=0, minute=0, second=0, microsecond=0)
    return {"done": judged.count(), "done_today": judged.filter(submitted_at__gte=today).count()}
