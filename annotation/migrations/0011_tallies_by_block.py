"""Readers go from block to block of ids; now they know which blocks hold what they look for."""

from __future__ import annotations

import django.db.models.deletion
from django.db import migrations, models

# Smaller steps than before, and no blocks so large that what lies in one could not be read in a moment.
BLOCKS = """
CREATE OR REPLACE FUNCTION annotation_blocks(id bigint) RETURNS text[] LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT ARRAY['@0:' || (id >> 11), '@1:' || (id >> 13), '@2:' || (id >> 15), '@3:' || (id >> 17)]
$$
"""
# Everything is derived: it is made anew from the tables by the next refreshes.
BEGIN_ANEW = """
TRUNCATE annotation_promptentry, annotation_comparisonentry, annotation_promptwords, annotation_stalewords,
         annotation_browsechange, annotation_tally;
INSERT INTO annotation_browsechange (kind, ids)
SELECT kind, array_agg(id)
FROM (SELECT id, (row_number() OVER () - 1) / 2000 AS part FROM annotation_prompt) ids, unnest(ARRAY[1, 2]) AS kind
GROUP BY kind, part;
INSERT INTO annotation_browsechange (kind, ids)
SELECT 3, array_agg(id) FROM (SELECT id, (row_number() OVER () - 1) / 2000 AS part FROM annotation_comparison) ids
GROUP BY part
"""


class Migration(migrations.Migration):
    dependencies = [
        ("annotation", "0010_work_on_prompts"),
    ]

    operations = [
        migrations.CreateModel(
            name="TallyBlock",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("scope", models.CharField(choices=[("p", "prompts"), ("c", "comparisons")], max_length=1)),
                ("dimension", models.CharField(max_length=20)),
                ("value", models.CharField(max_length=200)),
                ("block", models.BigIntegerField()),
                ("count", models.BigIntegerField()),
                (
                    "project",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        on_delete=django.db.models.deletion.DO_NOTHING,
                        related_name="+",
                        to="annotation.project",
                    ),
                ),
            ],
            options={
                "constraints": [
                    models.UniqueConstraint(
                        fields=("project", "scope", "dimension", "value", "block"), name="tallyblock_once"
                    )
                ],
            },
        ),
        migrations.RunSQL(BLOCKS, migrations.RunSQL.noop),
        migrations.RunSQL(BEGIN_ANEW, migrations.RunSQL.noop),
    ]
