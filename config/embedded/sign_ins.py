"""The accounts of a fresh installation, with random passwords kept in a file that only its owner can read."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from django.contrib.auth.models import User
from django.db import transaction

ADMIN = "admin"
DEMO_ANNOTATORS = ["ann", "ben"]


def create_sign_ins(usernames: list[str], path: Path) -> dict[str, str]:
    """Make those of the accounts that are missing and add them to the file; gives their passwords."""
    made: dict[str, str] = {}
    with transaction.atomic():
        known = set(User.objects.filter(username__in=usernames).values_list("username", flat=True))
        for username in usernames:
            if username in known:
                continue
            made[username] = secrets.token_urlsafe(12)
            is_admin = username == ADMIN
            User.objects.create_user(username, password=made[username], is_staff=is_admin, is_superuser=is_admin)
        if made:
            # Inside the transaction: an account whose password could not be kept is not made.
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            with os.fdopen(descriptor, "w") as file:
                file.writelines(f"{username} {password}\n" for username, password in made.items())
    return made
