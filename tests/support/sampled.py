"""Cases of which the fast tests try a part: enough to show the kind. All are tried with the slow ones."""

import pytest


def sampled(cases, every):
    """Return the parameters of a test, of which all but each ``every``-th, from the first on, are slow."""
    return [
        pytest.param(
            *(case if isinstance(case, tuple) else (case,)), marks=[pytest.mark.slow] * bool(place % every)
        )
        for place, case in enumerate(cases)
    ]
