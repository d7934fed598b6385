"""Pages for staff: the loop of a project, data sets, training jobs and checkpoints."""
