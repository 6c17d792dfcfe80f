"""One BLAS thread, for small matrix products lose time to more, and no figure is left open."""

import os
import sys
from collections.abc import Iterator

import pytest

for variable in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[variable] = "1"
os.environ["MPLBACKEND"] = "Agg"


@pytest.fixture(autouse=True)
def no_figure_is_left_open() -> Iterator[None]:
    """A test that asks for open figures, or draws many, sees its own alone."""
    yield
    if (pyplot := sys.modules.get("matplotlib.pyplot")) is not None:
        pyplot.close("all")
