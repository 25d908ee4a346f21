"""
What csjd costs, as ratios against a bare Trio pool: `python -m benchmarks`.

Each module without an underscore is one benchmark with a `run(rounds)` that returns rows.
"""
