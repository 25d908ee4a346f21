"""Floor 3: the only floor that imports Trio. It acts out what the core decides."""
