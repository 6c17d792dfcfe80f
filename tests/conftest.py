"""One BLAS thread, for small matrix products lose time to more; the same drawn examples each time; no figure open."""

import os
import signal
import sys
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

for variable in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[variable] = "1"
os.environ["MPLBACKEND"] = "Agg"
signal.signal(signal.SIGINT, signal.default_int_handler)  # which a shell's background job ignores

settings.register_profile(
    "same examples, on any machine",
    derandomize=True,
    database=None,
    deadline=None,  # the machine's speed is no property
    max_examples=60,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("same examples, on any machine")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The lessons first, in whatever order the others come: no process is left alone with one at the end."""
    items.sort(key=lambda item: "test_notebooks" not in item.nodeid)


@pytest.fixture(autouse=True)
def no_figure_is_left_open() -> Iterator[None]:
    """A test that asks for open figures, or draws many, sees its own alone, also none that a file drew when read."""
    close = getattr(sys.modules.get("matplotlib.pyplot"), "close", lambda which: None)
    close("all")
    yield
    getattr(sys.modules.get("matplotlib.pyplot"), "close", close)("all")
