"""Atomic file writes, also while several write the same one."""

from __future__ import annotations

import errno
import os
import platform
import signal
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from rnnlab.files import check_writable, write_atomically


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


def test_the_mode_of_a_file_stays(tmp_path: Path) -> None:
    path, new = tmp_path / "result", tmp_path / "new"
    path.write_bytes(b"old")
    for mode in (0o600, 0o640, 0o755):
        path.chmod(mode)
        write_atomically(path, b"new")
        assert stat.S_IMODE(path.stat().st_mode) == mode
    before = os.umask(0o027)
    try:
        write_atomically(new, b"new")
    finally:
        os.umask(before)
    assert stat.S_IMODE(new.stat().st_mode) == 0o640


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    link, target = tmp_path / "result", tmp_path / "disk" / "result"
    link.symlink_to(target)  # dangling at first
    for content in (b"one", b"two"):
        write_atomically(link, content)
        assert link.is_symlink()
        assert target.read_bytes() == content
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["disk", "result", "result"]


def dead_process() -> int:
    return int(subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True).stdout)


def test_what_killed_writes_left_is_cleaned_up_and_nothing_else(tmp_path: Path) -> None:
    path, here = tmp_path / "re*sult", platform.node()
    dead, old = f"re*sult.{here}-{dead_process()}-ab12.part", f"re*sult.elsewhere-{os.getppid()}-ab12.part"
    kept = [
        f"re*sult.{here}-{os.getppid()}-ab12.part",  # of a process that runs
        f"re*sult.elsewhere-{dead_process()}-ab12.part",  # of another machine, and young
        f"result.{here}-{dead_process()}-ab12.part",  # of another file
        "re*sult.part",
        "re*sult.notes-are-here.part",
    ]
    for name in (dead, old, *kept, f"re*sult.{here}-{os.getpid()}-ab12.part"):
        (tmp_path / name).touch()
    os.utime(tmp_path / old, (0, 0))
    write_atomically(path, b"whole")
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([*kept, path.name])


def test_a_write_that_is_killed_leaves_the_file_and_the_next_one_cleans_up(tmp_path: Path) -> None:
    path = tmp_path / "result"
    path.write_bytes(b"old")
    script = "import os, sys, rnnlab.files as f\nos.fsync = lambda n: os.kill(os.getpid(), 9)\n"
    script += "f.write_atomically(sys.argv[1], bytes(1000))"
    assert subprocess.run([sys.executable, "-c", script, str(path)]).returncode == -signal.SIGKILL
    assert path.read_bytes() == b"old"
    assert len(list(tmp_path.iterdir())) == 2
    write_atomically(path, b"new")
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("step", ["fsync", "replace"])
@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
def test_a_write_that_fails_leaves_the_file_and_names_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, error: BaseException
) -> None:
    path = tmp_path / "result"
    path.write_bytes(b"old")

    def fail(*arguments: object) -> None:
        raise error

    monkeypatch.setattr(os, step, fail)
    with pytest.raises(type(error)) as raised:
        write_atomically(path, b"new")
    if isinstance(raised.value, OSError):
        assert (raised.value.errno, raised.value.filename) == (errno.ENOSPC, str(path))
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_what_cannot_be_written_is_an_error_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    for path, error in (("folder", OSError), ("pipe", OSError), ("absent/result", FileNotFoundError)):
        for write in (check_writable, lambda path: write_atomically(path, b"new")):
            with pytest.raises(error, match=path):
                write(tmp_path / path)
    check_writable(tmp_path / "result")
    assert {p.name for p in tmp_path.iterdir()} == {"folder", "pipe"}
