"""Django's engine for Postgres, with a health check that costs no round trip."""
