"""What kind of item a person gets next: the places of gold items, repeats and uncertain comparisons among their items.

All are decided by the person's running count of items, so that nothing but the count is stored and the order can be
replayed. Whoever does not know the site's key cannot tell where the next gold item falls.
"""

from __future__ import annotations

import hmac

from django.conf import settings

from annotation.models import Project

FIRST_ITEMS = 50
"""Gold items come more often among these."""
REPEAT_AFTER = 50
"""A person's own items that lie between a comparison and its repeat, at least."""


def is_gold_due(project: Project, annotator_id: int, position: int) -> bool:
    """Whether the person's item at this position (0, 1, …) is to be a gold one.

    Items come in blocks of `gold_every` (at first `gold_every_at_first`), each with one gold item at a drawn place, so
    that the share is exact.
    """
    first = project.gold_every_at_first
    # The first 50, rounded up to whole blocks.
    first_items = -(-FIRST_ITEMS // first) * first if first else FIRST_ITEMS
    size, start = (first, 0) if position < first_items else (project.gold_every, first_items)
    if not size:
        return False
    block, place = divmod(position - start, size)
    return place == _drawn("gold", project, annotator_id, start + block * size) % size


def is_repeat_due(project: Project, annotator_id: int, position: int) -> bool:
    """Whether the person's item at this position is to be one of their own earlier ones."""
    return _drawn("repeat", project, annotator_id, position) < project.repeat_share * 2**64


def is_random_due(position: int) -> bool:
    """Whether a new comparison at this position must be a random one; at the others the uncertain come first.

    Every other one: more uncertain than random ones would leave nothing to measure their worth against.
    """
    return position % 2 == 0


def _drawn(what: str, project: Project, annotator_id: int, position: int) -> int:
    """An even draw from 0 … 2⁶⁴ − 1, the same every time."""
    message = f"{what} {project.pk} {annotator_id} {position}"
    return int.from_bytes(hmac.digest(settings.SECRET_KEY.encode(), message.encode(), "sha256")[:8])
