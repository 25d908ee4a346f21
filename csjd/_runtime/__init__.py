"""Floor 3: the lowest floor that imports Trio. It acts out what the core decides."""
