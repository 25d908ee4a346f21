"""The main job on real input: an index of the standard library, built by background jobs."""
