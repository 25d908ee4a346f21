"""Floor 0: pure data. Jobs, outcomes, the lifecycle table, events, settings, errors, protocols."""
