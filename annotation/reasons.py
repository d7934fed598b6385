"""The reasons that people pick where they skip or flag a comparison. Stored by value; new ones go before OTHER."""

from __future__ import annotations

from django.db import models
from django.utils.translation import gettext_lazy as _


class SkipReason(models.TextChoices):
    """About the person and the comparison: somebody else may well judge it."""

    LANGUAGE = "language", _("I do not read this language well")
    TOO_HARD = "too_hard", _("I cannot tell what is right")
    SENSITIVE = "sensitive", _("I would rather not read this")
    BROKEN = "broken", _("It cannot be judged as it is")
    OTHER = "other", _("Something else")


class FlagReason(models.TextChoices):
    """About the comparison itself: a reviewer should look."""

    BROKEN = "broken", _("A text is cut off or unreadable")
    PERSONAL_DATA = "personal_data", _("It holds personal data")
    HARMFUL = "harmful", _("It is harmful or illegal")
    NAMES_MODEL = "names_model", _("A response says which model wrote it")
    OFF_PROJECT = "off_project", _("It does not belong in this project")
    OTHER = "other", _("Something else")


class DropReason(models.TextChoices):
    """Why nobody should write a response to a prompt."""

    GOOD_ENOUGH = "good_enough", _("One of the responses is good enough")
    UNCLEAR = "unclear", _("The prompt makes no sense")
    UNANSWERABLE = "unanswerable", _("Nobody could answer it well")
    HARMFUL = "harmful", _("It should not be answered")
    OTHER = "other", _("Something else")
