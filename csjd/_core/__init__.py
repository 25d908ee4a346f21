"""
Floor 1: decisions. No Trio, no clock, no randomness.

Everything here gets the time as `now` and the last result as an argument, and can be
tested without an event loop. `backlog` owns the other modules' structures.
"""
