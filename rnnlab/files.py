"""Atomic file writes, and files of arrays: named arrays and a JSON header in one .npz or .safetensors file.

An .npz file is a zip archive with one member `<name>.npy` for each array (NumPy's format, version 1.0, uncompressed)
and the member `rnnlab.json`, so that `np.load` opens it too. A .safetensors file has the same JSON under the key
"rnnlab" of its metadata. Either way the header's "crc32" maps each array's name to the CRC-32 of its bytes, so a
missing, an added and a changed array are found. Reading executes nothing: no pickle, and no array is made before its
size is known to be in the file.
"""

from __future__ import annotations

import contextlib
import errno
import glob
import io
import json
import os
import platform
import stat
import time
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np

from rnnlab.ops import Array
from rnnlab.validate import describe, optional

HEADER = "rnnlab.json"
DAY = 86400.0
_writing: set[str] = set()  # the unfinished files of this process


def write_atomically(path: str | Path, content: bytes) -> None:
    """Write a file, or leave what stood there untouched, whenever and however the writing ends.

    The content goes into a file beside it, which takes its place when all of it is on the disk. An existing file's mode
    stays; a symbolic link stays, and what it points to is replaced. What killed writes of this file have left is
    removed. Raises OSError, which names the file, where there is no folder, no permission or no space.
    """
    target = _target(path)
    mode = stat.S_IMODE(target.stat().st_mode) if target.exists() else None
    remove_leftovers(target)
    part = target.with_name(f"{target.name}.{platform.node()}-{os.getpid()}-{uuid4().hex}.part")
    _writing.add(part.name)  # others, also in this process, may write the same file
    try:
        with part.open("xb") as file:
            if mode is not None:
                part.chmod(mode)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, target)
        sync_folder(target.parent)
    except OSError as error:
        text = error.strerror or str(error)
        if error.errno == errno.ENOENT and not target.parent.exists():
            text = f"the folder {target.parent} does not exist; make it first"
        raise OSError(error.errno or errno.EIO, text, str(path)) from error
    finally:
        part.unlink(missing_ok=True)
        _writing.discard(part.name)


def _target(path: str | Path) -> Path:
    """Where a file of this name is, behind symbolic links; OSError for what is no file."""
    target = Path(os.path.realpath(path_of("path", path)))
    if target.exists() and not target.is_file():
        raise OSError(errno.EINVAL, "expected the name of a file, got a folder or a device", str(path))
    return target


def remove_leftovers(target: Path) -> None:
    """Remove the unfinished files of this target whose writer is dead: its process is gone, or they are a day old."""
    for part in target.parent.glob(f"{glob.escape(target.name)}.*.part"):
        node, _, process = part.name[len(target.name) + 1 :].rpartition("-")[0].rpartition("-")
        if part.name in _writing or not process.isdigit():
            continue
        with contextlib.suppress(OSError):  # someone else removed it, or may not be disturbed
            dead = node == platform.node() and not is_running(int(process))
            if dead or part.stat().st_mtime < time.time() - DAY:
                part.unlink()


def is_running(process: int) -> bool:
    """Whether a process of this number, other than this one (see `_writing`), runs on this machine."""
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # someone else's
        return True
    return process != os.getpid()


def sync_folder(folder: Path) -> None:
    """Make a renamed file last through a power failure, where the system can open a folder."""
    with contextlib.suppress(OSError):
        number = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(number)
        finally:
            os.close(number)


def path_of(name: str, path: object) -> Path:
    """`path` as a Path; TypeError for what is no name of a file."""
    if not isinstance(path, str | Path) or not str(path) or "\0" in str(path):
        raise TypeError(f"{name}: expected the name of a file, got {describe(path)}")
    return Path(path)


def check_writable(path: str | Path) -> None:
    """OSError that names the path where a file cannot be written there: before an hour of computing, not after it."""
    target = _target(path)
    probe = target.with_name(f"{target.name}.{uuid4().hex}.probe")
    write_atomically(probe, b"rnnlab")
    probe.unlink()


# ---- arrays and a header ------------------------------------------------------------------------


def write_arrays(path: str | Path, header: Mapping[str, Any], arrays: Mapping[str, Array]) -> None:
    """Write named arrays and the header, whole or not at all; the name ends in .npz or .safetensors."""
    arrays = {name: np.require(a, requirements="C") for name, a in arrays.items()}
    text = json.dumps(dict(header) | {"crc32": {name: crc32(a) for name, a in arrays.items()}})
    if is_safetensors(path):
        write_atomically(path, _safetensors("safetensors.numpy").save(arrays, {"rnnlab": text}))
        return
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr(HEADER, text)
        for name, array in arrays.items():
            member = io.BytesIO()
            np.lib.format.write_array(member, array, version=(1, 0), allow_pickle=False)
            archive.writestr(f"{name}.npy", member.getvalue())
    write_atomically(path, content.getvalue())


def read_arrays(path: str | Path) -> tuple[dict[str, Any], dict[str, Array]]:
    """(header, arrays) of a file that `write_arrays` wrote.

    Raises FileNotFoundError and other OSErrors, and ValueError, which names the file and the array, for a file that is
    truncated, damaged or of another kind.
    """
    read = _read_safetensors if is_safetensors(path) else _read_npz
    try:
        text, arrays = read(path)
        header = json.loads(text)
        if not isinstance(header, dict) or not isinstance(header.get("crc32"), dict):
            raise ValueError("expected a header that names the arrays, got none")
    except (OSError, ImportError, MemoryError):
        raise
    except Exception as error:  # whatever a hostile file makes the parsers raise
        raise ValueError(
            f"{path}: expected a whole file that rnnlab saved, got {error}; take an undamaged copy"
        ) from error
    sums = header.pop("crc32")
    for name in sums.keys() | arrays.keys():
        if name not in arrays or name not in sums:
            what = "no such array" if name in sums else "one more"
            raise ValueError(f"{path}: expected the arrays {sorted(sums)}, got {what}: {name!r}")
        if crc32(arrays[name]) != sums[name]:
            raise ValueError(f"{path}: expected {name!r} as it was saved, got other numbers; take an undamaged copy")
    return header, arrays


def crc32(array: Array) -> int:
    """The CRC-32 of an array's bytes."""
    return zlib.crc32(np.require(array, requirements="C").reshape(-1).view(np.uint8).data)


def _read_npz(path: str | Path) -> tuple[bytes, dict[str, Array]]:
    arrays: dict[str, Array] = {}
    with zipfile.ZipFile(io.BytesIO(Path(path).read_bytes())) as archive:
        for member in archive.infolist():
            if member.compress_type != zipfile.ZIP_STORED or member.file_size != member.compress_size:
                raise ValueError(f"a compressed member, {member.filename!r}")
        names = archive.namelist()
        if len(set(names)) < len(names) or HEADER not in names:
            raise ValueError(f"the members {names!r:.200}, without one {HEADER!r}")
        text = archive.read(HEADER)
        for name in names:
            if name != HEADER:
                try:
                    arrays[name.removesuffix(".npy")] = _read_npy(archive.read(name))
                except Exception as error:
                    raise ValueError(f"{name!r} with {error}") from error
    return text, arrays


def _read_npy(content: bytes) -> Array:
    """The array of one member, a view of its bytes in this shape and dtype until all of it is known to fit."""
    file = io.BytesIO(content)
    if np.lib.format.read_magic(file) != (1, 0):
        raise ValueError("another version of NumPy's format")
    shape, fortran, dtype = np.lib.format.read_array_header_1_0(file)
    if dtype.kind not in "fiub" or not dtype.isnative or fortran or min(shape, default=0) < 0:
        raise ValueError(f"dtype {dtype} and shape {shape}, where floats or integers are expected")
    return np.frombuffer(content, dtype, offset=file.tell()).reshape(shape).copy()


def _read_safetensors(path: str | Path) -> tuple[str, dict[str, Array]]:
    with Path(path).open("rb"):  # missing files raise what others do
        pass
    with _safetensors("safetensors").safe_open(path, framework="numpy") as file:
        # The open file is no dict: only its keys can be iterated.
        return (file.metadata() or {})["rnnlab"], {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


def is_safetensors(path: str | Path) -> bool:
    """Whether the name ends in .safetensors; ValueError where it does not end in .npz either."""
    suffix = path_of("path", path).suffix
    if suffix not in (".npz", ".safetensors"):
        raise ValueError(f"path: expected a name that ends in .npz or .safetensors, got {str(path)!r}")
    return suffix == ".safetensors"


def _safetensors(module: str) -> Any:
    return optional(module, "safetensors", ", or save as .npz")
