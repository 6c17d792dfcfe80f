"""Files that are whole or not there."""

from __future__ import annotations

import os
from pathlib import Path
from uuid import uuid4


def write_atomically(path: str | Path, content: bytes) -> None:
    """Write a file, or leave what stood there untouched, whenever and however the writing ends."""
    path = Path(path)
    part = path.with_name(f"{path.name}.{uuid4().hex}.part")  # of this call alone: others may write the same file
    try:
        with part.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
