"""Deliveries are made by the database itself, from whatever is appended to the journal."""

from __future__ import annotations

from django.db import migrations

CREATE = """
CREATE FUNCTION annotation_queue_webhooks() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO annotation_webhookdelivery (public_id, webhook_id, event_id, payload, status, attempt_count,
                                            next_attempt_at, last_error, created_at)
    SELECT gen_random_uuid(), w.id, e.id,
           jsonb_build_object('id', e.id, 'kind', e.kind, 'at', e.at, 'project', p.slug,
                              'comparison', e.comparison_id, 'data', e.data),
           'waiting', 0, now(), '', now()
      FROM appended e
      JOIN annotation_webhook w ON w.project_id = e.project_id AND w.is_active
                               AND (w.events = '{}' OR e.kind = ANY (w.events))
      JOIN annotation_project p ON p.id = e.project_id
     WHERE e.kind NOT IN ('view', 'lease', 'expire', 'sign_in', 'token');
    RETURN NULL;
END $$;
CREATE TRIGGER annotation_event_webhooks AFTER INSERT ON annotation_event
    REFERENCING NEW TABLE AS appended FOR EACH STATEMENT EXECUTE FUNCTION annotation_queue_webhooks()
"""
DROP = """
DROP TRIGGER annotation_event_webhooks ON annotation_event;
DROP FUNCTION annotation_queue_webhooks()
"""


class Migration(migrations.Migration):
    dependencies = [("annotation", "0002_workbench")]
    operations = [migrations.RunSQL(CREATE, DROP)]
