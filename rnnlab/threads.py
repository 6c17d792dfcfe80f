"""How many threads the BLAS takes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from threading import Lock
from typing import Any

from rnnlab.optim import uninterrupted

BLAS_THREADS = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")
_limiting = Lock()  # held by the `fit` that limits the threads


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """One BLAS thread within, for products this small lose time to more: a lot of it on a busy machine.

    Where an environment variable asks for the number of threads that the BLAS has now, that number is kept. Of several
    `fit`s at once the first one sets the limit, and lifts it (another thread could not). Without threadpoolctl (in the
    extra "lesson") nothing changes.
    """
    first, limit = False, None
    try:
        with uninterrupted():
            first = find_spec("threadpoolctl") is not None and _limiting.acquire(blocking=False)
            limit = _limit() if first else None
        yield
    finally:
        with uninterrupted():
            if limit is not None:
                limit.restore_original_limits()
            if first:
                _limiting.release()


def _limit() -> Any:
    """threadpoolctl's limit to one BLAS thread; None where there is one already or the environment's number is used."""
    controller = import_module("threadpoolctl").ThreadpoolController().select(user_api="blas")
    asked = {os.environ.get(name) for name in BLAS_THREADS}
    now = {library.num_threads for library in controller.lib_controllers}
    return None if now <= {1} or {str(n) for n in now} <= asked else controller.limit(limits=1)
