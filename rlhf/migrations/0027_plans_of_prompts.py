"""Judges and people evaluate by themselves, too, on prompts that no data set trains on while the plan stands."""

import django.contrib.postgres.fields
import django.core.validators
import django.db.models.deletion
import django.utils.timezone
from django.conf import settings
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("annotation", "0023_leases_on_imported_conversations"),
        ("rlhf", "0026_gpus_of_measurements"),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.CreateModel(
            name="PromptEvaluation",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("step", models.PositiveIntegerField()),
                (
                    "prompt_ids",
                    django.contrib.postgres.fields.ArrayField(
                        base_field=models.BigIntegerField(),
                        blank=True,
                        db_default=models.Value(
                            [],
                            output_field=django.contrib.postgres.fields.ArrayField(
                                base_field=models.BigIntegerField(), size=None
                            ),
                        ),
                        default=list,
                        help_text="Those of the plan that none of its models, nor any they came from, was trained on.",
                        size=None,
                    ),
                ),
                ("error", models.TextField(blank=True, help_text="Why nobody judges it.")),
                ("created_at", models.DateTimeField(default=django.utils.timezone.now)),
            ],
            options={
                "ordering": ["job", "plan", "step"],
            },
        ),
        migrations.RemoveConstraint(
            model_name="evaluationplan",
            name="evaluationplan_once",
        ),
        migrations.RemoveConstraint(
            model_name="evaluationplan",
            name="evaluationplan_limits_positive",
        ),
        migrations.RemoveConstraint(
            model_name="judgerun",
            name="judgerun_scope_known",
        ),
        migrations.AddField(
            model_name="evaluationplan",
            name="ended_at",
            field=models.DateTimeField(blank=True, help_text="Since when nothing more is begun.", null=True),
        ),
        migrations.AddField(
            model_name="evaluationplan",
            name="judgments_per_item",
            field=models.PositiveSmallIntegerField(
                db_default=1,
                default=1,
                help_text="of people",
                validators=[django.core.validators.MinValueValidator(1), django.core.validators.MaxValueValidator(50)],
            ),
        ),
        migrations.AddField(
            model_name="evaluationplan",
            name="kind",
            field=models.CharField(
                choices=[
                    ("benchmark", "benchmark"),
                    ("judge_pairs", "judge: against the base"),
                    ("judge_scores", "judge: scores"),
                    ("gsb", "people: good, same, bad"),
                    ("rubric", "people: four marks"),
                ],
                db_default="benchmark",
                default="benchmark",
                max_length=20,
            ),
        ),
        migrations.AddField(
            model_name="evaluationplan",
            name="on_the_way",
            field=models.BooleanField(
                db_default=True,
                default=True,
                help_text="The models of `model_every_steps`, too, and not the last one alone.",
            ),
        ),
        migrations.AddField(
            model_name="evaluationplan",
            name="prompt_ids",
            field=django.contrib.postgres.fields.ArrayField(
                base_field=models.BigIntegerField(),
                blank=True,
                db_default=models.Value(
                    [],
                    output_field=django.contrib.postgres.fields.ArrayField(
                        base_field=models.BigIntegerField(), size=None
                    ),
                ),
                default=list,
                help_text="Those that were chosen; while the plan stands, data sets hold their groups out.",
                size=None,
            ),
        ),
        migrations.AddField(
            model_name="evaluationplan",
            name="selection",
            field=models.JSONField(
                blank=True,
                db_default=models.Value({}, output_field=models.JSONField()),
                default=dict,
                help_text='Which prompts: {"task", "tag", "at_most"}, as they were chosen.',
            ),
        ),
        migrations.AddField(
            model_name="generationjob",
            name="prompt_ids",
            field=django.contrib.postgres.fields.ArrayField(
                base_field=models.BigIntegerField(),
                blank=True,
                help_text="Of an evaluation's prompts; empty: of all.",
                null=True,
                size=None,
            ),
        ),
        migrations.AlterField(
            model_name="evaluationplan",
            name="data_set",
            field=models.ForeignKey(
                blank=True,
                null=True,
                on_delete=django.db.models.deletion.PROTECT,
                related_name="+",
                to="rlhf.benchmarkset",
            ),
        ),
        migrations.AlterField(
            model_name="evaluationplan",
            name="judge",
            field=models.ForeignKey(
                blank=True,
                null=True,
                on_delete=django.db.models.deletion.PROTECT,
                related_name="+",
                to="annotation.responsesource",
            ),
        ),
        migrations.AlterField(
            model_name="judgerun",
            name="scope",
            field=models.CharField(
                choices=[
                    ("voted", "what people have judged"),
                    ("unvoted", "what nobody has judged"),
                    ("all", "everything"),
                    ("evaluation", "prompts of an automatic evaluation"),
                ],
                default="voted",
                max_length=20,
            ),
        ),
        migrations.AddConstraint(
            model_name="evaluationplan",
            constraint=models.UniqueConstraint(
                condition=models.Q(("ended_at", None)), fields=("project", "data_set"), name="evaluationplan_once"
            ),
        ),
        migrations.AddConstraint(
            model_name="evaluationplan",
            constraint=models.CheckConstraint(
                condition=models.Q(("kind__in", ["benchmark", "judge_pairs", "judge_scores", "gsb", "rubric"])),
                name="evaluationplan_kind_known",
            ),
        ),
        migrations.AddConstraint(
            model_name="evaluationplan",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    models.Q(("data_set__isnull", False), ("judge__isnull", False), ("kind", "benchmark")),
                    models.Q(
                        ("data_set__isnull", True),
                        ("judge__isnull", False),
                        ("kind__in", ["judge_pairs", "judge_scores"]),
                    ),
                    models.Q(("data_set__isnull", True), ("judge__isnull", True), ("kind__in", ("gsb", "rubric"))),
                    _connector="OR",
                ),
                name="evaluationplan_has_what_it_needs",
            ),
        ),
        migrations.AddConstraint(
            model_name="evaluationplan",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    ("judge_max_tokens__gte", 1),
                    ("judgments_per_item__gte", 1),
                    ("max_tokens__gte", 1),
                    ("parallel__gte", 1),
                ),
                name="evaluationplan_limits_positive",
            ),
        ),
        migrations.AddConstraint(
            model_name="judgerun",
            constraint=models.CheckConstraint(
                condition=models.Q(("scope__in", ["voted", "unvoted", "all", "evaluation"])),
                name="judgerun_scope_known",
            ),
        ),
        migrations.AddField(
            model_name="promptevaluation",
            name="against",
            field=models.ForeignKey(
                blank=True,
                help_text="The job's base.",
                null=True,
                on_delete=django.db.models.deletion.PROTECT,
                related_name="+",
                to="rlhf.checkpoint",
            ),
        ),
        migrations.AddField(
            model_name="promptevaluation",
            name="checkpoint",
            field=models.ForeignKey(
                on_delete=django.db.models.deletion.PROTECT, related_name="prompt_evaluations", to="rlhf.checkpoint"
            ),
        ),
        migrations.AddField(
            model_name="promptevaluation",
            name="generation",
            field=models.ForeignKey(
                blank=True,
                help_text="The last one.",
                null=True,
                on_delete=django.db.models.deletion.PROTECT,
                related_name="+",
                to="rlhf.generationjob",
            ),
        ),
        migrations.AddField(
            model_name="promptevaluation",
            name="job",
            field=models.ForeignKey(
                on_delete=django.db.models.deletion.CASCADE, related_name="prompt_evaluations", to="rlhf.trainingjob"
            ),
        ),
        migrations.AddField(
            model_name="promptevaluation",
            name="judge_run",
            field=models.ForeignKey(
                blank=True,
                null=True,
                on_delete=django.db.models.deletion.PROTECT,
                related_name="prompt_evaluations",
                to="rlhf.judgerun",
            ),
        ),
        migrations.AddField(
            model_name="promptevaluation",
            name="plan",
            field=models.ForeignKey(
                on_delete=django.db.models.deletion.PROTECT, related_name="evaluations", to="rlhf.evaluationplan"
            ),
        ),
        migrations.AddField(
            model_name="promptevaluation",
            name="study",
            field=models.ForeignKey(
                blank=True,
                null=True,
                on_delete=django.db.models.deletion.PROTECT,
                related_name="prompt_evaluations",
                to="annotation.study",
            ),
        ),
        migrations.AddConstraint(
            model_name="promptevaluation",
            constraint=models.UniqueConstraint(fields=("plan", "job", "step"), name="promptevaluation_once"),
        ),
        migrations.AddConstraint(
            model_name="promptevaluation",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    models.Q(("judge_run", None), ("study", None)),
                    models.Q(("error", ""), ("judge_run", None)),
                    models.Q(("error", ""), ("study", None)),
                    _connector="OR",
                ),
                name="promptevaluation_one_outcome",
            ),
        ),
    ]
