"""Judges: what they are asked, their runs, and each thing that they said."""

import django.contrib.postgres.fields
import django.core.validators
import django.db.models.deletion
import django.utils.timezone
from django.conf import settings
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("annotation", "0020_pairs_drawn_for_conversations"),
        ("rlhf", "0020_periodic_evaluation"),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.CreateModel(
            name="JudgePrompt",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                (
                    "kind",
                    models.CharField(
                        choices=[
                            ("pair", "pair comparison"),
                            ("absolute", "absolute score"),
                            ("golden", "score against a golden answer"),
                        ],
                        max_length=20,
                    ),
                ),
                (
                    "task",
                    models.CharField(
                        blank=True, help_text="Of the prompts that it is for; empty: any other.", max_length=60
                    ),
                ),
                ("language", models.CharField(choices=[("zh", "Chinese"), ("en", "English")], max_length=2)),
                ("version", models.PositiveIntegerField()),
                ("text", models.TextField(help_text="With the placeholders that rlhf/judges/wording.py lists.")),
                (
                    "asks_sameness",
                    models.BooleanField(
                        db_default=False,
                        default=False,
                        help_text="Of a pair: also whether both reach the same result, and by the same reasoning.",
                    ),
                ),
                ("created_at", models.DateTimeField(default=django.utils.timezone.now)),
                (
                    "created_by",
                    models.ForeignKey(
                        blank=True,
                        help_text="Empty: it came with the site.",
                        null=True,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="+",
                        to=settings.AUTH_USER_MODEL,
                    ),
                ),
            ],
            options={
                "ordering": ["version"],
            },
        ),
        migrations.CreateModel(
            name="JudgeRun",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                (
                    "status",
                    models.CharField(
                        choices=[
                            ("queued", "waiting for a worker"),
                            ("running", "a worker holds the lease"),
                            ("paused", "stopped with its checkpoint, to go on when somebody asks"),
                            ("succeeded", "finished; its result stands"),
                            ("failed", "ended by an error that another try would not mend, or whose tries are spent"),
                            ("cancelled", "stopped because somebody asked"),
                        ],
                        default="queued",
                        max_length=20,
                    ),
                ),
                (
                    "owner",
                    models.CharField(
                        blank=True, help_text="host:pid:token of the worker that holds the lease", max_length=200
                    ),
                ),
                ("attempt", models.PositiveIntegerField(default=0)),
                ("lease_expires_at", models.DateTimeField(blank=True, null=True)),
                (
                    "dispatched_at",
                    models.DateTimeField(blank=True, help_text="When a message was last sent for it.", null=True),
                ),
                (
                    "not_before",
                    models.DateTimeField(
                        blank=True, help_text="When it may be taken again, after a failure of its machine.", null=True
                    ),
                ),
                ("cancel_requested_at", models.DateTimeField(blank=True, null=True)),
                ("error", models.TextField(blank=True)),
                ("queued_at", models.DateTimeField(default=django.utils.timezone.now)),
                ("started_at", models.DateTimeField(blank=True, null=True)),
                ("finished_at", models.DateTimeField(blank=True, null=True)),
                (
                    "parallel",
                    models.PositiveSmallIntegerField(
                        default=8,
                        validators=[
                            django.core.validators.MinValueValidator(1),
                            django.core.validators.MaxValueValidator(64),
                        ],
                    ),
                ),
                ("waiting_for", models.TextField(blank=True, db_default="", help_text="Why nothing comes just now.")),
                (
                    "report",
                    models.JSONField(
                        blank=True,
                        db_default=models.Value({}, output_field=models.JSONField()),
                        default=dict,
                        help_text="The figures at its end.",
                    ),
                ),
                (
                    "kind",
                    models.CharField(
                        choices=[
                            ("pair", "pair comparison"),
                            ("absolute", "absolute score"),
                            ("golden", "score against a golden answer"),
                        ],
                        max_length=20,
                    ),
                ),
                (
                    "scope",
                    models.CharField(
                        choices=[
                            ("voted", "what people have judged"),
                            ("unvoted", "what nobody has judged"),
                            ("all", "everything"),
                        ],
                        default="voted",
                        max_length=20,
                    ),
                ),
                (
                    "language",
                    models.CharField(choices=[("zh", "Chinese"), ("en", "English")], default="zh", max_length=2),
                ),
                (
                    "prompt_ids",
                    django.contrib.postgres.fields.ArrayField(
                        base_field=models.BigIntegerField(),
                        help_text="The versions of the prompts in force when it was queued, in order.",
                        size=None,
                    ),
                ),
                (
                    "max_tokens",
                    models.PositiveIntegerField(
                        default=1024,
                        help_text="of a verdict",
                        validators=[django.core.validators.MinValueValidator(1)],
                    ),
                ),
                (
                    "attempts",
                    models.PositiveSmallIntegerField(
                        default=3,
                        validators=[
                            django.core.validators.MinValueValidator(1),
                            django.core.validators.MaxValueValidator(10),
                        ],
                    ),
                ),
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
                    "judge",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT, related_name="+", to="annotation.responsesource"
                    ),
                ),
                (
                    "project",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT, related_name="+", to="annotation.project"
                    ),
                ),
            ],
        ),
        migrations.CreateModel(
            name="JudgeVerdict",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                (
                    "is_swapped",
                    models.BooleanField(db_default=False, default=False, help_text="Response b was shown first."),
                ),
                ("reference", models.TextField(blank=True, help_text="The golden answer that was shown.")),
                (
                    "outcome",
                    models.CharField(
                        blank=True,
                        choices=[
                            ("", "not asked yet"),
                            ("usable", "usable"),
                            ("nothing", "nothing was said"),
                            ("prose", "prose instead of JSON"),
                            ("half_json", "JSON that breaks off"),
                            ("wrong_shape", "JSON in another shape"),
                            ("invented_key", "an invented key"),
                            ("missing_key", "a key left out"),
                            ("other_word", "another word, or another language"),
                            ("partial_credit", "a verdict or score between two"),
                            ("off_scale", "a score outside the scale"),
                            ("no_reason", "no reason given"),
                            ("refused", "the endpoint refused the request"),
                            ("unreadable", "the endpoint sent what cannot be read"),
                        ],
                        default="",
                        max_length=20,
                    ),
                ),
                (
                    "preference",
                    models.CharField(blank=True, help_text="Of a pair, in content order: a, b or tie.", max_length=10),
                ),
                ("score", models.PositiveSmallIntegerField(blank=True, null=True)),
                ("same_result", models.BooleanField(blank=True, null=True)),
                ("same_reasoning", models.BooleanField(blank=True, null=True)),
                ("reason", models.TextField(blank=True)),
                ("note", models.TextField(blank=True, help_text="The failure in words.")),
                ("raw", models.TextField(blank=True, help_text="The last thing that the judge said.")),
                ("tries", models.PositiveSmallIntegerField(default=0)),
                ("seconds", models.FloatField(blank=True, null=True)),
                (
                    "comparison",
                    models.ForeignKey(
                        blank=True,
                        null=True,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="+",
                        to="annotation.comparison",
                    ),
                ),
                (
                    "prompt",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT, related_name="+", to="rlhf.judgeprompt"
                    ),
                ),
                (
                    "response",
                    models.ForeignKey(
                        blank=True,
                        null=True,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="+",
                        to="annotation.response",
                    ),
                ),
                (
                    "run",
                    models.ForeignKey(
                        db_index=False,
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="verdicts",
                        to="rlhf.judgerun",
                    ),
                ),
            ],
        ),
        migrations.AddConstraint(
            model_name="judgeprompt",
            constraint=models.UniqueConstraint(
                fields=("kind", "task", "language", "version"), name="judgeprompt_version_once"
            ),
        ),
        migrations.AddConstraint(
            model_name="judgeprompt",
            constraint=models.CheckConstraint(
                condition=models.Q(("kind__in", ["pair", "absolute", "golden"])), name="judgeprompt_kind_known"
            ),
        ),
        migrations.AddConstraint(
            model_name="judgeprompt",
            constraint=models.CheckConstraint(
                condition=models.Q(("language__in", ["zh", "en"])), name="judgeprompt_language_known"
            ),
        ),
        migrations.AddConstraint(
            model_name="judgeprompt",
            constraint=models.CheckConstraint(
                condition=models.Q(("version__gte", 1)), name="judgeprompt_version_positive"
            ),
        ),
        migrations.AddConstraint(
            model_name="judgeprompt",
            constraint=models.CheckConstraint(
                condition=models.Q(("kind", "pair"), ("asks_sameness", False), _connector="OR"),
                name="judgeprompt_sameness_of_pairs",
            ),
        ),
        migrations.AddIndex(
            model_name="judgerun",
            index=models.Index(fields=["project", "judge", "kind"], name="judgerun_of_judge"),
        ),
        migrations.AddConstraint(
            model_name="judgerun",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    ("status__in", ["queued", "running", "paused", "succeeded", "failed", "cancelled"])
                ),
                name="judgerun_status_known",
            ),
        ),
        migrations.AddConstraint(
            model_name="judgerun",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    models.Q(
                        ("lease_expires_at__isnull", False),
                        ("status", "running"),
                        models.Q(("owner", ""), _negated=True),
                    ),
                    models.Q(
                        models.Q(("status", "running"), _negated=True),
                        ("lease_expires_at__isnull", True),
                        ("owner", ""),
                    ),
                    _connector="OR",
                ),
                name="judgerun_running_has_lease",
            ),
        ),
        migrations.AddConstraint(
            model_name="judgerun",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    models.Q(("finished_at__isnull", False), ("status__in", ("succeeded", "failed", "cancelled"))),
                    models.Q(
                        models.Q(("status__in", ("succeeded", "failed", "cancelled")), _negated=True),
                        ("finished_at__isnull", True),
                    ),
                    _connector="OR",
                ),
                name="judgerun_finished_has_time",
            ),
        ),
        migrations.AddConstraint(
            model_name="judgerun",
            constraint=models.CheckConstraint(
                condition=models.Q(("kind__in", ["pair", "absolute", "golden"])), name="judgerun_kind_known"
            ),
        ),
        migrations.AddConstraint(
            model_name="judgerun",
            constraint=models.CheckConstraint(
                condition=models.Q(("scope__in", ["voted", "unvoted", "all"])), name="judgerun_scope_known"
            ),
        ),
        migrations.AddConstraint(
            model_name="judgerun",
            constraint=models.CheckConstraint(
                condition=models.Q(("language__in", ["zh", "en"])), name="judgerun_language_known"
            ),
        ),
        migrations.AddConstraint(
            model_name="judgerun",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    ("attempts__gte", 1), ("attempts__lte", 10), ("max_tokens__gte", 1), ("parallel__gte", 1)
                ),
                name="judgerun_limits_positive",
            ),
        ),
        migrations.AddIndex(
            model_name="judgeverdict",
            index=models.Index(fields=["run", "outcome", "id"], name="judgeverdict_of_run"),
        ),
        migrations.AddConstraint(
            model_name="judgeverdict",
            constraint=models.UniqueConstraint(
                condition=models.Q(("comparison__isnull", False)),
                fields=("run", "comparison", "is_swapped"),
                name="judgeverdict_pair_once_each_way",
            ),
        ),
        migrations.AddConstraint(
            model_name="judgeverdict",
            constraint=models.UniqueConstraint(
                condition=models.Q(("response__isnull", False)),
                fields=("run", "response"),
                name="judgeverdict_response_once",
            ),
        ),
        migrations.AddConstraint(
            model_name="judgeverdict",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    models.Q(("comparison__isnull", False), ("response__isnull", True)),
                    models.Q(("comparison__isnull", True), ("is_swapped", False), ("response__isnull", False)),
                    _connector="OR",
                ),
                name="judgeverdict_of_pair_or_response",
            ),
        ),
        migrations.AddConstraint(
            model_name="judgeverdict",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    ("outcome", ""),
                    (
                        "outcome__in",
                        [
                            "",
                            "usable",
                            "nothing",
                            "prose",
                            "half_json",
                            "wrong_shape",
                            "invented_key",
                            "missing_key",
                            "other_word",
                            "partial_credit",
                            "off_scale",
                            "no_reason",
                            "refused",
                            "unreadable",
                        ],
                    ),
                    _connector="OR",
                ),
                name="judgeverdict_outcome_known",
            ),
        ),
        migrations.AddConstraint(
            model_name="judgeverdict",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    models.Q(
                        ("comparison__isnull", False),
                        ("outcome", "usable"),
                        ("preference__in", ["a", "b", "tie"]),
                        ("score", None),
                    ),
                    models.Q(
                        ("outcome", "usable"),
                        ("preference", ""),
                        ("response__isnull", False),
                        ("score__gte", 1),
                        ("score__lte", 10),
                    ),
                    models.Q(models.Q(("outcome", "usable"), _negated=True), ("preference", ""), ("score", None)),
                    _connector="OR",
                ),
                name="judgeverdict_says_something_where_usable",
            ),
        ),
        migrations.RunSQL(
            """
            CREATE FUNCTION rlhf_judgeprompt_is_append_only() RETURNS trigger LANGUAGE plpgsql AS $$
            BEGIN
                RAISE EXCEPTION 'what judges were asked is append-only: % of rlhf_judgeprompt is refused', TG_OP;
            END $$;
            CREATE TRIGGER rlhf_judgeprompt_append_only BEFORE UPDATE OR DELETE ON rlhf_judgeprompt
                FOR EACH STATEMENT EXECUTE FUNCTION rlhf_judgeprompt_is_append_only()
            """,
            """
            DROP TRIGGER rlhf_judgeprompt_append_only ON rlhf_judgeprompt;
            DROP FUNCTION rlhf_judgeprompt_is_append_only()
            """,
        ),
    ]
