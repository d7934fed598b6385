"""Who wrote responses of a project, kept by the database: a million responses are not read to name a few sources."""

from __future__ import annotations

import django.db.models.deletion
from django.db import migrations, models

FILL = """
INSERT INTO annotation_projectsource (project_id, source_id)
SELECT DISTINCT p.project_id, r.source_id FROM annotation_response r JOIN annotation_prompt p ON p.id = r.prompt_id
"""
# An import stores thousands of responses of a few sources: only pairs that are new are written.
NOTE = """
CREATE FUNCTION annotation_note_sources() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO annotation_projectsource (project_id, source_id)
    SELECT DISTINCT p.project_id, r.source_id FROM changed r JOIN annotation_prompt p ON p.id = r.prompt_id
     WHERE NOT EXISTS (SELECT 1 FROM annotation_projectsource known
                        WHERE known.project_id = p.project_id AND known.source_id = r.source_id);
    RETURN NULL;
END $$;
CREATE TRIGGER annotation_note_sources AFTER INSERT ON annotation_response
    REFERENCING NEW TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION annotation_note_sources();
ALTER TABLE annotation_response ENABLE ALWAYS TRIGGER annotation_note_sources
"""
FORGET = """
DROP TRIGGER annotation_note_sources ON annotation_response;
DROP FUNCTION annotation_note_sources()
"""


class Migration(migrations.Migration):
    dependencies = [("annotation", "0017_sampling_probabilities")]

    operations = [
        migrations.CreateModel(
            name="ProjectSource",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                (
                    "project",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="+",
                        to="annotation.project",
                    ),
                ),
                (
                    "source",
                    models.ForeignKey(
                        db_index=False,
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="+",
                        to="annotation.responsesource",
                    ),
                ),
            ],
        ),
        migrations.RunSQL(FILL, migrations.RunSQL.noop),
        migrations.RunSQL(NOTE, FORGET),
    ]
