"""A removed webhook is kept, so that its removal can be undone."""

from __future__ import annotations

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("annotation", "0015_fewer_indexes")]

    operations = [
        migrations.AddField(
            model_name="webhook",
            name="removed_at",
            field=models.DateTimeField(
                blank=True, help_text="Shown nowhere any more; can be brought back.", null=True
            ),
        ),
        migrations.AlterField(
            model_name="webhookdelivery",
            name="status",
            field=models.CharField(
                choices=[("waiting", "waiting"), ("delivered", "delivered"), ("given_up", "given up")],
                default="waiting",
                max_length=20,
            ),
        ),
    ]
