from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("annotation", "0005_tokens_figures_and_their_indexes")]

    operations = [
        migrations.AddField(
            model_name="comparison",
            name="review_since",
            field=models.DateTimeField(
                blank=True,
                help_text="Waits for a reviewer: the votes disagree, or people flagged or skipped it.",
                null=True,
            ),
        ),
        migrations.AddField(
            model_name="comparison",
            name="reviewed_at",
            field=models.DateTimeField(
                blank=True,
                help_text="When a reviewer last dealt with it; older votes and skips ask for nothing.",
                null=True,
            ),
        ),
        migrations.AddIndex(
            model_name="comparison",
            index=models.Index(
                condition=models.Q(("review_since__isnull", False)),
                fields=["project", "-review_since", "-id"],
                name="comparison_review",
            ),
        ),
    ]
