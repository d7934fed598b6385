"""What of the site a person may open."""

from __future__ import annotations

from typing import Any, NamedTuple

from django import template
from django.http import HttpRequest
from django.template import Context
from django.urls import NoReverseMatch, reverse
from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _

from annotation.access import is_at_least, manages_a_project, role_in
from annotation.models import Project, Role

register = template.Library()

# Every page of a project, the role that it needs, and what its tab says. The page's short name, which templates give
# to `_project_tabs.html`, is that of its address without "project_".
TABS: tuple[tuple[str, str | Promise, Role], ...] = (
    ("project_detail", _("Overview"), Role.REVIEWER),
    ("project_prompts", _("Prompts"), Role.ADMIN),
    ("project_generate", _("Responses"), Role.ADMIN),
    ("project_quality", _("Quality"), Role.REVIEWER),
    ("project_leaderboard", _("Leaderboard"), Role.REVIEWER),
    ("project_studies", _("Human evaluation"), Role.REVIEWER),
    ("project_progress", _("Progress"), Role.REVIEWER),
    ("project_people", _("People"), Role.ADMIN),
    ("project_guidelines", _("Guidelines"), Role.ANNOTATOR),
    ("project_settings", _("Settings"), Role.ADMIN),
    ("project_journal", _("Journal"), Role.ADMIN),
)


class Tab(NamedTuple):
    url: str
    label: str | Promise
    is_current: bool


@register.simple_tag(takes_context=True)
def project_tabs(context: Context, project: Project, page: str = "") -> list[Tab]:
    """The tabs that the person who looks may open."""
    request: HttpRequest = context.request  # type: ignore[attr-defined]
    role = getattr(request, "role", None) or role_in(request.user, project)
    tabs = []
    for name, label, needed in TABS:
        if is_at_least(role, needed):
            try:
                tabs.append(Tab(reverse(name, args=[project.slug]), label, name == f"project_{page}"))
            except NoReverseMatch:
                continue
    return tabs


@register.simple_tag(takes_context=True)
def may_open_projects(context: dict[str, Any]) -> bool:
    """Whether the list of projects shows this person anything beyond what their first page shows."""
    user = getattr(context["request"], "user", None)  # a page may be rendered outside the middleware
    return user is not None and manages_a_project(user)
