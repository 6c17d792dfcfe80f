"""What a training run asks of its process: that Ctrl-C waits while a step is completed, and one BLAS thread."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from typing import Any

BLAS_THREADS = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")
_limiting = threading.Lock()  # held by the `fit` that limits the threads


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Defer Ctrl-C to the end of the block, so that what belongs together changes together.

    Python runs signal handlers in the main thread alone; in any other there is nothing to defer.
    """
    if threading.current_thread() is not threading.main_thread() or not callable(signal.getsignal(signal.SIGINT)):
        yield
        return
    came: list[Any] = []
    before = signal.signal(signal.SIGINT, lambda *arguments: came.append(arguments))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        if came:
            signal.raise_signal(signal.SIGINT)


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
