"""Scores of imported conversations carry the guidelines that the person could read, as judgments do."""

from __future__ import annotations

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("annotation", "0021_what_imports_write")]

    operations = [
        migrations.AddField(
            model_name="rating",
            name="guideline_version",
            field=models.PositiveIntegerField(db_default=0, default=0, help_text="As a judgment's."),
        ),
    ]
