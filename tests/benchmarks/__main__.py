"""One thread each: the libraries read these variables when they are imported."""

import os

for variable in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[variable] = "1"

from .compare import main  # noqa: E402 - after the variables, which it reads

main()
