"""Long work on prompts, what it takes back and finds; hashes of texts that were judged before they were masked."""

from __future__ import annotations

import django.contrib.postgres.fields
import django.db.models.deletion
import django.utils.timezone
from django.conf import settings
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("annotation", "0009_triggers_that_imports_do_not_skip"),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.CreateModel(
            name="SimilarResponses",
            fields=[
                (
                    "comparison",
                    models.OneToOneField(
                        on_delete=django.db.models.deletion.CASCADE,
                        primary_key=True,
                        related_name="+",
                        serialize=False,
                        to="annotation.comparison",
                    ),
                ),
                ("similarity", models.PositiveSmallIntegerField(help_text="As in Duplicate.")),
            ],
        ),
        migrations.AddField(
            model_name="comparison",
            name="withdrawn_with_prompt",
            field=models.BooleanField(
                db_default=False, default=False, help_text="Comes back when its prompt leaves the archive."
            ),
        ),
        migrations.AddField(
            model_name="prompt",
            name="original_sha256",
            field=models.CharField(
                blank=True,
                db_default="",
                help_text="Of the messages that were judged before they were masked.",
                max_length=64,
            ),
        ),
        migrations.AddField(
            model_name="response",
            name="original_sha256",
            field=models.CharField(
                blank=True, db_default="", help_text="Of the text that was judged before it was masked.", max_length=64
            ),
        ),
        migrations.CreateModel(
            name="DataJob",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                (
                    "kind",
                    models.CharField(
                        choices=[
                            ("edit", "edit of prompts"),
                            ("undo", "undo of an edit"),
                            ("check", "check of an uploaded file"),
                            ("import", "import of an uploaded file"),
                            ("scan", "search for personal data"),
                            ("mask", "masking of personal data"),
                            ("duplicates", "search for duplicates"),
                        ],
                        max_length=20,
                    ),
                ),
                (
                    "status",
                    models.CharField(
                        choices=[
                            ("queued", "waiting for a worker"),
                            ("running", "at work"),
                            ("done", "done"),
                            ("failed", "failed"),
                            ("stopped", "stopped"),
                        ],
                        default="queued",
                        max_length=20,
                    ),
                ),
                (
                    "params",
                    models.JSONField(
                        blank=True,
                        db_default=models.Value({}, output_field=models.JSONField()),
                        default=dict,
                        help_text="What is to be done; its keys depend on the kind.",
                    ),
                ),
                (
                    "result",
                    models.JSONField(
                        blank=True,
                        db_default=models.Value({}, output_field=models.JSONField()),
                        default=dict,
                        help_text="What came of it.",
                    ),
                ),
                ("error", models.TextField(blank=True, help_text="A sentence for people.")),
                ("total", models.PositiveIntegerField(default=0)),
                ("done", models.PositiveIntegerField(default=0)),
                ("attempt", models.PositiveSmallIntegerField(default=0)),
                ("heartbeat_at", models.DateTimeField(blank=True, null=True)),
                ("stop_requested", models.BooleanField(default=False)),
                ("undone_at", models.DateTimeField(blank=True, null=True)),
                ("created_at", models.DateTimeField(default=django.utils.timezone.now)),
                ("finished_at", models.DateTimeField(blank=True, null=True)),
                (
                    "created_by",
                    models.ForeignKey(
                        blank=True,
                        null=True,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="+",
                        to=settings.AUTH_USER_MODEL,
                    ),
                ),
                (
                    "project",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT, related_name="data_jobs", to="annotation.project"
                    ),
                ),
            ],
        ),
        migrations.CreateModel(
            name="Duplicate",
            fields=[
                (
                    "prompt",
                    models.OneToOneField(
                        on_delete=django.db.models.deletion.CASCADE,
                        primary_key=True,
                        related_name="+",
                        serialize=False,
                        to="annotation.prompt",
                    ),
                ),
                (
                    "similarity",
                    models.PositiveSmallIntegerField(
                        help_text="Percent of the passages that either has; 100: the same."
                    ),
                ),
                (
                    "like",
                    models.ForeignKey(
                        db_index=False,
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="+",
                        to="annotation.prompt",
                    ),
                ),
                (
                    "project",
                    models.ForeignKey(
                        db_index=False,
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="+",
                        to="annotation.project",
                    ),
                ),
            ],
        ),
        migrations.CreateModel(
            name="PromptBefore",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("task", models.CharField(blank=True, max_length=60)),
                ("lang", models.CharField(blank=True, max_length=20)),
                ("skill", models.CharField(blank=True, max_length=60)),
                ("topic", models.CharField(blank=True, max_length=100)),
                (
                    "tags",
                    django.contrib.postgres.fields.ArrayField(
                        base_field=models.CharField(max_length=60),
                        blank=True,
                        db_default=models.Value(
                            [],
                            output_field=django.contrib.postgres.fields.ArrayField(
                                base_field=models.CharField(max_length=60), size=None
                            ),
                        ),
                        default=list,
                        size=None,
                    ),
                ),
                ("archived_at", models.DateTimeField(blank=True, null=True)),
                (
                    "job",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE, related_name="before", to="annotation.datajob"
                    ),
                ),
                (
                    "prompt",
                    models.ForeignKey(
                        db_index=False,
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="+",
                        to="annotation.prompt",
                    ),
                ),
            ],
        ),
        migrations.AddConstraint(
            model_name="datajob",
            constraint=models.CheckConstraint(
                condition=models.Q(("kind__in", ["edit", "undo", "check", "import", "scan", "mask", "duplicates"])),
                name="datajob_kind_known",
            ),
        ),
        migrations.AddConstraint(
            model_name="datajob",
            constraint=models.CheckConstraint(
                condition=models.Q(("status__in", ["queued", "running", "done", "failed", "stopped"])),
                name="datajob_status_known",
            ),
        ),
        migrations.AddConstraint(
            model_name="datajob",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    models.Q(("finished_at__isnull", True), ("status__in", ["queued", "running"])),
                    models.Q(("finished_at__isnull", False), ("status__in", ["done", "failed", "stopped"])),
                    _connector="OR",
                ),
                name="datajob_finished_has_time",
            ),
        ),
        migrations.AddConstraint(
            model_name="datajob",
            constraint=models.UniqueConstraint(
                condition=models.Q(("status__in", ["queued", "running"])),
                fields=("project",),
                name="datajob_one_at_a_time",
            ),
        ),
        migrations.AddIndex(
            model_name="duplicate",
            index=models.Index(fields=["project", "-like", "prompt"], name="duplicate_groups"),
        ),
        migrations.AddConstraint(
            model_name="promptbefore",
            constraint=models.UniqueConstraint(fields=("job", "prompt"), name="promptbefore_once"),
        ),
    ]
