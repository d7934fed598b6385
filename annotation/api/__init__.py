"""The HTTP API: everything that the pages do, for programs. Described by OpenAPI at /api/schema/ and /api/docs/."""
