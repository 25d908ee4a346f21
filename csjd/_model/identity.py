"""Job ids: time-ordered UUIDs."""

import os
import time


def new_job_id() -> str:
    """
    Return a fresh id, later ones sorting after earlier ones.

    The leading 60 bits are wall-clock time down to about 244 ns, the rest is random, so
    no state is shared between threads or processes.

    Source:
        RFC 9562, UUID version 7, method 3 (increased clock precision).
    """
    milliseconds, rest = divmod(time.time_ns(), 1_000_000)
    fraction = rest * 4096 // 1_000_000
    random = int.from_bytes(os.urandom(8), "big") & 0x3FFF_FFFF_FFFF_FFFF
    value = f"{milliseconds << 80 | 7 << 76 | fraction << 64 | 2 << 62 | random:032x}"
    return f"{value[:8]}-{value[8:12]}-{value[12:16]}-{value[16:20]}-{value[20:]}"
