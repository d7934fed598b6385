"""A reviewer's last word on three responses or more is a ranking."""

from __future__ import annotations

import django.contrib.postgres.fields
from django.db import migrations, models
from django.db.models import Q


class Migration(migrations.Migration):
    dependencies = [("annotation", "0013_cheaper_notes_of_changes")]

    operations = [
        migrations.AddField(
            model_name="adjudication",
            name="ranking",
            field=django.contrib.postgres.fields.ArrayField(
                base_field=models.PositiveSmallIntegerField(),
                blank=True,
                help_text="Ranks in content order, 1 the best; equal numbers are ties.",
                null=True,
                size=None,
            ),
        ),
        migrations.AddConstraint(
            model_name="adjudication",
            constraint=models.CheckConstraint(
                condition=Q(preference="ranked", ranking__isnull=False)
                | (~Q(preference="ranked") & Q(ranking__isnull=True)),
                name="adjudication_ranking_where_ranked",
            ),
        ),
    ]
