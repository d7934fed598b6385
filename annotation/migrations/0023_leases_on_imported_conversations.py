"""Who takes an imported conversation to rate it holds it for a while, not for ever."""

from __future__ import annotations

from django.db import migrations, models

LEASE_WHAT_IS_TAKEN = """
UPDATE annotation_conversation SET lease_expires_at = now() + interval '1 day'
WHERE annotator_id IS NOT NULL AND source_a_id IS NULL AND ended_at IS NULL
"""


class Migration(migrations.Migration):
    dependencies = [("annotation", "0022_guidelines_that_ratings_followed")]

    operations = [
        migrations.AddField(
            model_name="conversation",
            name="lease_expires_at",
            field=models.DateTimeField(
                blank=True, help_text="Of an imported one: from then on somebody else may rate it.", null=True
            ),
        ),
        migrations.RunSQL(LEASE_WHAT_IS_TAKEN, migrations.RunSQL.noop),
    ]
