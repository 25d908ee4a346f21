"""`python -m benchmarks`: run benchmarks, print their tables, write them down."""

import importlib
import sys
sys.stdout.reconfigure(line_buffering=True)
from benchmarks._kit.tables import text_table
rounds=int(sys.argv[1])
for name in sys.argv[2:]:
    m = importlib.import_module(f"benchmarks.{name}")
    print(m.TITLE)
    print(text_table(m.run(rounds)))
