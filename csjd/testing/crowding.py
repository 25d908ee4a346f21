"""Settings under which a few jobs soon meet each other, and their limits."""

from typing import Any, Final

from hypothesis import strategies as st

from csjd._model.config import Config

_FEW: Final[dict[str, st.SearchStrategy[Any]]] = {
    "workers": st.integers(1, 3),
    "lanes": st.integers(1, 2),
    "duplicate_window": st.sampled_from([0.0, 3.0]),
    "max_pending": st.sampled_from([None, 8]),
    "max_pending_per_session": st.sampled_from([None, 3]),
    "virtual_nodes": st.just(3),
    # No sums of other times, so that what falls due at once does so by a draw.
    "detach_grace": st.just(0.61),
    "job_timeout": st.just(3.07),
}


def crowded_configs(**others: st.SearchStrategy[Any]) -> st.SearchStrategy[Config]:
    """
    Draw a `Config` with few workers, few lanes and low limits.

    Args:
        **others: By name, strategies of settings that are to be drawn otherwise, or besides.
    """
    return st.builds(Config, **(_FEW | others))
