"""Pages about the prompts of a project: finding, editing, uploading and masking them, and their duplicates."""
