"""Somebody who runs the site, and a base checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from django.test import Client

if TYPE_CHECKING:  # this file is read before Django's applications are
    from django.contrib.auth.models import User

    from rlhf.models import Checkpoint


@pytest.fixture
def base(tiny_model: Path) -> Checkpoint:
    from rlhf.services import register_base_checkpoint

    return register_base_checkpoint("tiny", tiny_model)


@pytest.fixture
def staff() -> User:
    from tests.factories import make_user

    return make_user("boss", is_staff=True)


@pytest.fixture
def page(staff: User) -> Client:
    client = Client()
    client.force_login(staff)
    return client
