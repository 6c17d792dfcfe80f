"""Files that are whole or not there, also while several write the same one."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from rnnlab.files import write_atomically


def test_writers_of_one_file_do_not_disturb_each_other(tmp_path: Path) -> None:
    """Whoever reads finds what one of them wrote, whole, and nothing is left over."""
    path, contents = tmp_path / "result", [bytes([n]) * 200_000 for n in range(8)]
    path.write_bytes(contents[0])

    def write(n: int) -> None:
        for _ in range(10):
            write_atomically(path, contents[n])

    with ThreadPoolExecutor(8) as pool:
        writers = [pool.submit(write, n) for n in range(8)]
        while not all(writer.done() for writer in writers):
            assert path.read_bytes() in contents
        for writer in writers:
            writer.result()
    assert list(tmp_path.iterdir()) == [path]
