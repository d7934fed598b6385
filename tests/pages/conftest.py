"""The pages as somebody who runs the site sees them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from django.test import Client

if TYPE_CHECKING:  # this file is read before Django's applications are
    from django.contrib.auth.models import User


@pytest.fixture
def page(staff: User) -> Client:
    client = Client()
    client.force_login(staff)
    return client
