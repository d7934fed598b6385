"""The demo project that a fresh installation starts with."""

from __future__ import annotations

from django.conf import settings
from django.contrib.auth.models import User

from annotation import services as annotation
from annotation.demo_prompts import DEMO_PROMPTS
from annotation.models import Project
from rlhf.models import Checkpoint
from rlhf.services.checkpoints import publish_checkpoint
from rlhf.services.generation import queue_generation_job

DEMO_SLUG = "demo"
GUIDELINES = """\
Choose the response that you would rather have received.

1. **Does it do what was asked?** A response that misses the task loses, however well it reads.
2. **Is it right?** One false statement outweighs good style.
3. **Is it worth its length?** Between two right answers, prefer the shorter and the more polite one.

Use **Same** when you would not mind which one you got, and **Neither is good** when you would accept none of them.
"""


def seed_demo(annotator_usernames: list[str]) -> Project:
    """Make the demo project with its prompts and queue two responses to each; running it again changes nothing."""
    project = annotation.create_project(slug=DEMO_SLUG, name="Helpful answers", guidelines=GUIDELINES)
    for task, messages in DEMO_PROMPTS:
        annotation.add_prompt(project, messages, task=task)
    project.members.add(*User.objects.filter(username__in=annotator_usernames))
    if not project.generation_jobs.exists():
        source = publish_checkpoint(Checkpoint.objects.get(name=settings.STARTER_MODEL))
        queue_generation_job(project=project, source=source)
    return project
