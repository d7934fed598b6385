"""Plain functions that make rows for tests, with every argument optional."""

from __future__ import annotations

import itertools
from typing import Any
from uuid import uuid4

from django.contrib.auth.models import User

from annotation import services
from annotation.models import Annotator, Comparison, Judgment, Project, Prompt, Response, ResponseSource

_numbers = itertools.count(1)


def make_user(username: str = "", *, is_staff: bool = False, password: str = "a-long-password") -> User:
    create = User.objects.create_superuser if is_staff else User.objects.create_user
    return create(username or f"user{next(_numbers)}", password=password)


def make_annotator(user: User | None = None, *, project: Project | None = None) -> Annotator:
    """Somebody who judges; with a project, as its member."""
    user = user or make_user()
    if project:
        services.add_member(project, user)
    return services.annotator_for(user)


def make_project(slug: str = "", *, judgments_per_comparison: int = 1, members: list[User] | None = None) -> Project:
    slug = slug or f"project-{next(_numbers)}"
    project = services.create_project(slug=slug, name=slug, judgments_per_comparison=judgments_per_comparison)
    project.members.set(members or [])
    return project


def make_prompt(project: Project, text: str = "") -> Prompt:
    return services.add_prompt(project, [{"role": "user", "content": text or f"Question {next(_numbers)}?"}])


def make_source(name: str = "", *, kind: str = "imported", served_model: str = "") -> ResponseSource:
    return ResponseSource.objects.get_or_create(
        name=name or f"source-{next(_numbers)}", defaults={"kind": kind, "served_model": served_model}
    )[0]


def make_response(prompt: Prompt, source: ResponseSource | None = None, text: str = "") -> Response:
    number = next(_numbers)
    return services.add_response(
        prompt,
        source or make_source(),
        number,
        text or f"Answer {number}.",
        seed=number,
        sampling={},
        template_sha256="",
        finish_reason="stop",
    )


def make_comparison(
    project: Project | None = None, *, prompt: Prompt | None = None, a_text: str = "", b_text: str = ""
) -> Comparison:
    project = project or make_project()
    prompt = prompt or make_prompt(project)
    a, b = make_response(prompt, text=a_text), make_response(prompt, text=b_text)
    services.create_comparisons(project, [(a, b)])
    return Comparison.objects.get(response_a=a, response_b=b)


def make_ranking(project: Project | None = None, *texts: str) -> Comparison:
    """A comparison of three responses or more."""
    project = project or make_project()
    prompt = make_prompt(project)
    responses = [make_response(prompt, text=text) for text in texts or ("one", "two", "three")]
    services.create_rankings(project, [responses])
    return Comparison.objects.get(prompt=prompt)


def make_judgment(
    comparison: Comparison,
    preference: str = "a",
    strength: int | None = None,
    *,
    ranking: list[int] | None = None,
    annotator: Annotator | None = None,
) -> Judgment:
    """A stored verdict without the browser's part (no assignment), as imported data has it."""
    return Judgment.objects.create(
        public_id=uuid4(),
        comparison=comparison,
        annotator=annotator or make_annotator(),
        preference=preference,
        strength=strength,
        ranking=ranking,
    )


def make_judged_project(prompt_count: int = 12, **more: Any) -> Project:
    """A project in which somebody preferred the polite response to the rude one for every prompt."""
    project = make_project(**more)
    annotator = make_annotator()
    for number in range(prompt_count):
        prompt = make_prompt(project, f"Please tell me about the weather on day {number}.")
        comparison = make_comparison(
            project,
            prompt=prompt,
            a_text=f"Thank you, I am glad to help. It is fine on day {number}.",
            b_text=f"No idea, go away. Day {number} is a stupid question.",
        )
        make_judgment(comparison, "a", -2, annotator=annotator)
    return project
