"""A site of the first version keeps everything when it is brought up to date."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from django.db import connection
from django.db.migrations.executor import MigrationExecutor


@pytest.fixture
def first_version(transactional_db: None) -> Iterator[MigrationExecutor]:
    """The tables as the first version had them; brought up to date again at the end, whatever happened."""
    newest = MigrationExecutor(connection).loader.graph.leaf_nodes()
    executor = MigrationExecutor(connection)
    executor.migrate([("annotation", "0001_initial"), ("rlhf", "0001_initial")])
    yield MigrationExecutor(connection)
    MigrationExecutor(connection).migrate(newest)


@pytest.mark.slow
def test_members_and_guidelines_of_the_first_version_stay(first_version: MigrationExecutor) -> None:
    old = first_version.loader.project_state([("annotation", "0001_initial")]).apps
    user = old.get_model("auth", "User").objects.create(username="annotator")
    Project = old.get_model("annotation", "Project")
    told = Project.objects.create(slug="told", name="Told", guidelines="Be kind.")
    told.members.add(user)
    Project.objects.create(slug="untold", name="Untold")
    newest = first_version.loader.graph.leaf_nodes()
    executor = MigrationExecutor(connection)
    executor.migrate(newest)
    new = executor.loader.project_state(newest).apps
    [membership] = new.get_model("annotation", "Membership").objects.all()
    assert (membership.project.slug, membership.user_id, membership.role) == ("told", user.pk, "annotator")
    [version] = new.get_model("annotation", "GuidelineVersion").objects.all()
    assert (version.project.slug, version.version, version.text) == ("told", 1, "Be kind.")
    Project = new.get_model("annotation", "Project")
    assert dict(Project.objects.values_list("slug", "guideline_version")) == {"told": 1, "untold": 0}
