"""Models as files: what is loaded is what was saved, bit for bit, and a file that is not whole is refused by name."""

from __future__ import annotations

import contextlib
import copy
import io
import json
import pickle
import re
import struct
import zipfile
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import rnnlab as rl
from rnnlab.files import HEADER, crc32, read_arrays, write_arrays
from tests.cases import CELLS, MinimalGatedUnit, refuses

SUFFIXES = (".npz", ".safetensors")
each_suffix = pytest.mark.parametrize("suffix", SUFFIXES)


class Leaky(MinimalGatedUnit):
    """A learner's cell with an option of its own."""

    def __init__(self, input_size: int, hidden_size: int, *, leak: float = 0.5, **arguments: Any) -> None:
        super().__init__(input_size, hidden_size, **arguments)
        self.leak = leak


class Forgetful(MinimalGatedUnit):
    """One that keeps its option under another name, where nothing finds it."""

    def __init__(self, input_size: int, hidden_size: int, *, leak: float = 0.5, **arguments: Any) -> None:
        super().__init__(input_size, hidden_size, **arguments)
        self.rate = leak


def half_squared_error(prediction: Any, target: Any, mask: Any) -> Any:
    loss, d = rl.mean_squared_error(prediction, target, mask)
    return loss / 2, d / 2


def model_of(*cells: rl.Cell, loss: Any = rl.mean_squared_error) -> rl.SequenceModel:
    return rl.SequenceModel(cells, rl.Dense(cells[-1].hidden_size, 2, rng=9, dtype=cells[0].dtype), loss)


def small() -> rl.SequenceModel:
    return model_of(rl.LSTMCell(3, 4, rng=0), rl.RNNCell(4, 5, rng=1, activation="relu"))


def assert_same(found: rl.SequenceModel, model: rl.SequenceModel) -> None:
    assert repr(found) == repr(model)
    assert [type(cell) for cell in found.cells] == [type(cell) for cell in model.cells]
    assert found.loss is model.loss
    assert list(found.params) == list(model.params)
    for name, p in model.params.items():
        assert found.params[name].dtype == p.dtype
        np.testing.assert_array_equal(found.params[name], p, err_msg=name)
    x = np.random.default_rng(5).normal(size=(6, 2, model.cells[0].input_size)).astype(p.dtype)
    np.testing.assert_array_equal(found.predict(x)[0], model.predict(x)[0])


@each_suffix
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("cell_class", CELLS, ids=lambda c: c.__name__)
def test_what_is_loaded_is_what_was_saved(tmp_path: Path, cell_class: type[rl.Cell], dtype: Any, suffix: str) -> None:
    skip_without(suffix)
    model = model_of(cell_class(3, 4, rng=0, dtype=dtype), rl.RNNCell(4, 5, rng=1, activation="relu", dtype=dtype))
    model.save(tmp_path / f"model{suffix}")
    found = rl.load(str(tmp_path / f"model{suffix}"))
    assert_same(found, model)
    for p in found.params.values():  # and it can be trained
        assert p.flags.writeable
    assert list(tmp_path.iterdir()) == [tmp_path / f"model{suffix}"]


def skip_without(suffix: str) -> None:
    if suffix == ".safetensors":
        pytest.importorskip("safetensors", reason="safetensors is an extra")


def test_numpy_and_safetensors_alone_read_the_weights(tmp_path: Path) -> None:
    model = small()
    model.save(tmp_path / "model.npz")
    with np.load(tmp_path / "model.npz") as file:
        np.testing.assert_array_equal(file["cells.1.W_h"], model.cells[1].W_h)
        assert json.loads(file[HEADER])["model"]["cells"][1]["activation"] == "relu"
    pytest.importorskip("safetensors", reason="safetensors is an extra")
    from safetensors.numpy import load_file

    model.save(tmp_path / "model.safetensors")
    np.testing.assert_array_equal(load_file(tmp_path / "model.safetensors")["readout.b"], model.params["readout.b"])


def test_a_cell_of_yours_is_asked_for_by_name(tmp_path: Path) -> None:
    model, path = model_of(Leaky(3, 4, rng=0, leak=0.25)), tmp_path / "model.npz"
    model.save(path)
    with pytest.raises(ValueError, match=r"model\.npz: .*'Leaky'.*cells=\[Leaky\]"):
        rl.load(path)
    found = rl.load(path, cells=[Leaky])
    assert_same(found, model)
    assert vars(found.cells[0])["leak"] == 0.25
    other = type("Leaky", (rl.LSTMCell,), {})
    with pytest.raises(ValueError, match=r"model\.npz: expected"):
        rl.load(path, cells=[other])


def test_a_subclass_named_like_the_librarys_is_not_taken_for_it(tmp_path: Path) -> None:
    mine = type("LSTMCell", (rl.LSTMCell,), {"__module__": "lesson"})
    model_of(mine(3, 4, rng=0)).save(tmp_path / "model.npz")
    with pytest.raises(ValueError, match="hand it over"):
        rl.load(tmp_path / "model.npz")


def test_an_option_that_loading_would_lose_is_refused(tmp_path: Path) -> None:
    with refuses(ValueError, "Forgetful.rate"):
        model_of(Forgetful(3, 4, rng=0, leak=0.25)).save(tmp_path / "model.npz")
    assert not list(tmp_path.iterdir())


def test_a_loss_of_yours_is_asked_for_by_name(tmp_path: Path) -> None:
    model, path = model_of(rl.GRUCell(3, 4, rng=0), loss=half_squared_error), tmp_path / "model.npz"
    model.save(path)
    with pytest.raises(ValueError, match=r"'half_squared_error'.*loss=half_squared_error"):
        rl.load(path)
    with pytest.raises(ValueError, match="'half_squared_error'"):
        rl.load(path, loss=rl.softmax_cross_entropy)
    assert_same(rl.load(path, loss=half_squared_error), model)


def test_the_alphabet_of_a_text_is_kept(tmp_path: Path) -> None:
    text = rl.tasks.char_text("the quick brown fox jumps over the lazy dog. é\n" * 9, T=6, batch_size=3)
    model = rl.SequenceModel(rl.GRUCell(text.size, 4, rng=0), rl.Dense(4, text.size, rng=1), rl.softmax_cross_entropy)
    rl.Trainer(model, rl.SGD(0.1)).fit(text, 2)
    model.save(tmp_path / "model.npz")
    found = rl.load(tmp_path / "model.npz")
    assert found.vocabulary == model.vocabulary == text.characters


# ---- files that are not whole -------------------------------------------------------------------


def npy(array: Any, **options: Any) -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array(file, np.asarray(array), version=(1, 0), **options)
    return file.getvalue()


def forged(header: str) -> bytes:
    """A .npy member whose header says something else than its 8 bytes hold."""
    text = header.encode().ljust(118) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + bytes(8)


def members(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def rewrite(path: Path, content: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> None:
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in content.items():
            archive.writestr(name, data)


class Bomb:
    """Unpickling it would write a file."""

    def __reduce__(self) -> Any:
        return open, ("exploded", "w")


MEMBER = "cells.0.W_h.npy"
MEMBERS: dict[str, Any] = {
    "a pickled object": lambda old: npy(np.array([Bomb()], object), allow_pickle=True),
    "a bare pickle": lambda old: pickle.dumps(Bomb()),
    "an absurd shape": lambda old: forged("{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000,), }"),
    "a shape beyond 64 bits": lambda old: forged(
        "{'descr': '<f8', 'fortran_order': False, 'shape': (18446744073709551617,), }"
    ),
    "a negative shape": lambda old: forged("{'descr': '<f8', 'fortran_order': False, 'shape': (-1, -1), }"),
    "a header that is code": lambda old: forged("__import__('os').abort()"),
    "an empty member": lambda old: b"",
    "half a member": lambda old: old[: len(old) // 2],
    "integers": lambda old: npy(np.ones((4, 4, 4), int)),
    "float32": lambda old: npy(np.ones((4, 4, 4), np.float32)),
    "complex numbers": lambda old: npy(np.ones((4, 4, 4), complex)),
    "strings": lambda old: npy(np.full((4, 4, 4), "a")),
    "another shape": lambda old: npy(np.ones((4, 4, 5))),
    "other numbers": lambda old: npy(np.ones((4, 4, 4))),
    "NaN": lambda old: npy(np.full((4, 4, 4), np.nan)),
}


@pytest.mark.parametrize("what", MEMBERS)
def test_a_wrong_array_is_refused_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    monkeypatch.chdir(tmp_path)
    model_of(rl.LSTMCell(3, 4, rng=0)).save("model.npz")
    content = members(Path("model.npz"))
    content[MEMBER] = MEMBERS[what](content[MEMBER])
    headers = [content[HEADER]]
    with contextlib.suppress(ValueError, EOFError, MemoryError, OverflowError):  # someone who mends the checksum too
        header = json.loads(content[HEADER])
        header["crc32"]["cells.0.W_h"] = crc32(np.lib.format.read_array(io.BytesIO(content[MEMBER])))
        if what != "other numbers":  # which would be another good model
            headers.append(json.dumps(header).encode())
    for text in headers:
        rewrite(Path("model.npz"), content | {HEADER: text})
        with pytest.raises(ValueError, match=r"^model\.npz: .*cells\.0\.W_h"):
            rl.load("model.npz")
    assert not Path("exploded").exists()


def changed(**entries: Any) -> Callable[[dict[str, Any]], dict[str, Any]]:
    return lambda header: header | entries


def cell_with(**entries: Any) -> Callable[[dict[str, Any]], dict[str, Any]]:
    def change(header: dict[str, Any]) -> dict[str, Any]:
        header["model"]["cells"][0] |= entries
        return header

    return change


HEADERS: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "a later version": (changed(version=2), "later rnnlab"),
    "a version that is no number": (changed(version="1"), "expected"),
    "another format": (changed(format="zarr"), "'zarr'"),
    "no model": (lambda header: {"format": "rnnlab", "version": 1, "crc32": header["crc32"]}, "expected"),
    "no object": (lambda header: [1, 2], "expected"),
    "a string": (changed(model="model"), "expected"),
    "a cell alone": (lambda header: header | {"model": header["model"]["cells"][0]}, "no model"),
    "an alphabet of numbers": (changed(vocabulary=[1, 2]), "alphabet"),
    "a class that runs": (cell_with(**{"class": "rnnlab.Trainer"}), "'rnnlab.Trainer'"),
    "a class of Python": (cell_with(**{"class": "os.system"}), r"'os\.system'"),
    "a class that is a list": (cell_with(**{"class": ["LSTMCell"]}), "expected"),
    "a function in place of a cell": (lambda h: h | {"model": {"function": "rnnlab.load"}}, "'rnnlab.load'"),
    "an unknown option": (cell_with(peephole=True), "peephole"),
    "a huge cell": (cell_with(hidden_size=10**9), "sizes"),
    "a huge thin cell": (cell_with(input_size=1, hidden_size=100), "sizes"),
    "a negative cell": (cell_with(hidden_size=-4), "sizes"),
    "another cell": (cell_with(**{"class": "rnnlab.GRUCell"}), "cells.0"),
    "another size": (cell_with(input_size=4), "cells.0.W_x"),
    "another dtype": (cell_with(dtype="float32"), "dtype"),
    "an object's dtype": (cell_with(dtype="object"), "dtype"),
    "no checksums": (lambda header: {k: v for k, v in header.items() if k != "crc32"}, "names the arrays"),
}


@each_suffix
@pytest.mark.parametrize("what", HEADERS)
def test_a_wrong_header_is_refused_and_says_why(tmp_path: Path, what: str, suffix: str) -> None:
    skip_without(suffix)
    path = tmp_path / f"model{suffix}"
    model_of(rl.LSTMCell(3, 4, rng=0)).save(path)
    change, why = HEADERS[what]
    if suffix == ".npz":
        content = members(path)
        content[HEADER] = json.dumps(change(json.loads(content[HEADER]))).encode()
        rewrite(path, content)
    else:
        from safetensors.numpy import load_file, save_file

        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            text = json.loads(file.read(length))["__metadata__"]["rnnlab"]
        save_file(load_file(path), path, {"rnnlab": json.dumps(change(json.loads(text)))})
    with pytest.raises(ValueError, match=rf"(?s)^{re.escape(str(path))}: .*{why}"):
        rl.load(path)


def test_a_header_nested_without_end_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.npz"
    small().save(path)
    for text in (b"[" * 100_000, b'{"model":' * 100_000, b"\xff\xfe", b"", b"9" * 10_000, b"null"):
        rewrite(path, members(path) | {HEADER: text})
        with pytest.raises(ValueError, match=r"model\.npz: expected"):
            rl.load(path)


@each_suffix
def test_missing_and_added_arrays_are_named(tmp_path: Path, suffix: str) -> None:
    skip_without(suffix)
    path = tmp_path / f"model{suffix}"
    small().save(path)
    header, arrays = read_arrays(path)
    for entries in (
        {k: a for k, a in arrays.items() if k != "readout.b"},
        arrays | {"readout.c": np.zeros(1)},
        arrays | {"optimizer.0.readout.b": np.zeros((1, 2))},  # a trainer's, in a model's file
    ):
        write_arrays(path, header, entries)
        name = next(iter(set(arrays) ^ set(entries)))
        with pytest.raises(ValueError, match=rf"model{suffix}: expected .*'{name}'"):
            rl.load(path)


def test_a_zip_bomb_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    path = tmp_path / "model.npz"
    small().save(path)
    rewrite(path, members(path), zipfile.ZIP_DEFLATED)
    with pytest.raises(ValueError, match="compressed"):
        rl.load(path)


def test_foreign_files_are_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "model.npz"
    for content in (b"", b"hello", pickle.dumps(Bomb()), bytes(1000), b"PK\x05\x06" + bytes(18)):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"model\.npz: expected a whole file that rnnlab saved, got "):
            rl.load(path)
    np.savez(path, a=np.zeros(3))
    with pytest.raises(ValueError, match=r"model\.npz: expected"):
        rl.load(path)
    pytest.importorskip("safetensors", reason="safetensors is an extra")
    path = tmp_path / "model.safetensors"
    for content in (b"", b"hello", bytes(1000), struct.pack("<Q", 2**60) + b"{}", struct.pack("<Q", 2) + b"{}"):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"model\.safetensors: expected a whole file that rnnlab saved, got "):
            rl.load(path)


def test_a_file_or_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"absent\.npz"):
        rl.load(tmp_path / "absent.npz")
    with pytest.raises(FileNotFoundError, match=r"absent.model\.npz"):
        small().save(tmp_path / "absent" / "model.npz")


@each_suffix
def test_every_cut_and_many_flips_are_found(tmp_path: Path, suffix: str) -> None:
    """Whatever single bit is changed and wherever the file ends, what is loaded is the model or nothing."""
    skip_without(suffix)
    path, model = tmp_path / f"model{suffix}", model_of(rl.RNNCell(1, 2, rng=0))
    model.save(path)
    whole = path.read_bytes()
    for end in range(0, len(whole), 19):
        path.write_bytes(whole[:end])
        with pytest.raises(ValueError, match=rf"model{suffix}: expected"):
            rl.load(path)
    rng, refused = np.random.default_rng(0), 0
    for place, bit in zip(rng.integers(len(whole), size=300), rng.integers(8, size=300), strict=True):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << bit
        path.write_bytes(damaged)
        try:
            found = rl.load(path)
        except ValueError:
            refused += 1
        else:
            assert_same(found, model)  # a bit that nobody reads, such as a date
    assert refused > 150


def test_a_model_with_a_nan_does_not_replace_a_good_file(tmp_path: Path) -> None:
    model, path = small(), tmp_path / "model.npz"
    model.save(path)
    before = path.read_bytes()
    model.params["readout.b"][0, 1] = np.nan
    with refuses(ValueError, "params['readout.b']"):
        model.save(path)
    with refuses(TypeError, "params['cells.0.W_x']"):
        small().astype(complex).save(path)
    assert path.read_bytes() == before


def test_everything_copies_and_pickles() -> None:
    model, task = small(), rl.tasks.adding(4)
    trainer = rl.Trainer(model, rl.Adam(rl.linear_decay(0.1, 10)), clip_norm=1.0)
    trainer.train_step(rl.Batch(np.ones((3, 2, 3)), np.ones((3, 2, 2))))
    text = rl.tasks.char_text("abc " * 50, T=4, batch_size=2)
    reports: list[Any] = [rl.check_gradients(rl.LSTMCell(2, 3, rng=0)), rl.diagnose(rl.LSTMCell(2, 3, rng=0))]
    optimizer, last = trainer.optimizer, trainer.last
    thing: Any
    for thing in (*model.cells, model.readout, model, optimizer, trainer, task, text, last, *reports):
        for again in (pickle.loads(pickle.dumps(thing)), copy.deepcopy(thing), copy.copy(thing)):
            assert type(again) is type(thing)
            assert repr(again).split(" at 0x")[0] == repr(thing).split(" at 0x")[0]
            if isinstance(thing, rl.Cell | rl.SequenceModel):
                for name, p in thing.params.items():
                    np.testing.assert_array_equal(again.params[name], p)
    again = pickle.loads(pickle.dumps(trainer))
    for one in (trainer, again):
        one.train_step(rl.Batch(np.ones((3, 2, 3)), np.ones((3, 2, 2))))
    assert again.history == trainer.history


class Wrong(rl.RNNCell):
    """A tenth too much."""

    def step_backward(self, d_next: Any, prev: Any, gates: Any, extras: Any) -> Any:
        (d_a,), d_prev, d_extras = super().step_backward(d_next, prev, gates, extras)
        return (1.1 * d_a,), d_prev, d_extras


def fails() -> None:
    rl.check_gradients(Wrong(2, 3, rng=0))


def test_a_gradient_mismatch_arrives_from_a_worker_process_as_itself() -> None:
    with pytest.raises(rl.GradientMismatch) as here:
        fails()
    for again in (pickle.loads(pickle.dumps(here.value)), copy.deepcopy(here.value)):
        assert type(again) is rl.GradientMismatch
        assert str(again) == str(here.value)
        assert again.array == here.value.array
    with ProcessPoolExecutor(1, get_context("spawn")) as pool, pytest.raises(rl.GradientMismatch) as there:
        pool.submit(fails).result()
    assert str(there.value) == str(here.value)


def test_a_partial_of_a_loss_and_sizes_that_are_not_kept_are_refused_at_save(tmp_path: Path) -> None:
    readout, loss = rl.Dense(3, 1), partial(rl.mean_squared_error)
    with pytest.raises(ValueError, match=r"^loss: expected a function made with def, .*write a def$"):
        rl.SequenceModel(rl.RNNCell(2, 3), readout, loss).save(tmp_path / "model.npz")

    class Letters(rl.RNNCell):
        def __init__(self, D: int, H: int) -> None:
            super().__init__(D, H)

    with pytest.raises(ValueError, match=r"; keep each argument of its constructor under its name$"):
        rl.SequenceModel(Letters(2, 3), readout, rl.mean_squared_error).save(tmp_path / "model.npz")
