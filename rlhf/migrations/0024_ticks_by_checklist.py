"""A person ticks an answer anew where its checklist changed; a run may have answers only."""

from __future__ import annotations

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("rlhf", "0023_a_job_that_hangs")]

    operations = [
        migrations.RemoveConstraint(model_name="benchmarkticks", name="benchmarkticks_once"),
        migrations.AddConstraint(
            model_name="benchmarkticks",
            constraint=models.UniqueConstraint(
                fields=("answer", "annotator", "checklist"), name="benchmarkticks_once"
            ),
        ),
        migrations.RemoveConstraint(model_name="benchmarkrun", name="benchmarkrun_has_judge"),
        migrations.AlterField(
            model_name="benchmarkrun",
            name="judge",
            field=models.ForeignKey(
                blank=True,
                help_text="Empty where there are only answers.",
                null=True,
                on_delete=models.deletion.PROTECT,
                related_name="+",
                to="annotation.responsesource",
            ),
        ),
    ]
