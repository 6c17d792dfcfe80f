"""How time and memory grow with T, B and H: linearly for training; for `predict`, not with T."""

from __future__ import annotations

import tracemalloc

import numpy as np

from .models import Shape, Work, batch, model, print_table, rounds

BASE = {"T": 100, "B": 8, "D": 8, "H": 32}  # in the order of Shape
Sizes = dict[str, tuple[int, ...]]
SIZES: Sizes = {"T": (100, 300, 1000, 3000, 10_000), "B": (1, 8, 32, 128), "H": (16, 32, 64, 128, 256)}
QUICK_SIZES: Sizes = {"T": (10, 200), "B": (1, 2), "H": (4, 8)}


def resized(letter: str, value: int) -> Shape:
    return Shape(*(BASE | {letter: value}).values())


def peak_bytes(work: Work) -> int:
    """The most that `work` held at one time, beyond what was there before."""
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def training(shape: Shape) -> tuple[float, int]:
    """(seconds, peak bytes) of one loss_and_grads of a float64 LSTM, the least of three runs."""
    net, data = model("LSTM", shape, "float64"), batch(shape, "float64")
    return rounds([lambda: net.loss_and_grads(data)], 3).min(), peak_bytes(lambda: net.loss_and_grads(data))


def prediction(shape: Shape) -> tuple[float, int, int]:
    """(seconds, peak bytes, bytes of the outputs) of one `predict`."""
    net, x = model("LSTM", shape, "float64"), batch(shape, "float64").x
    least = rounds([lambda: net.predict(x)], 3).min()
    return least, peak_bytes(lambda: net.predict(x)), net.predict(x)[0].nbytes


def exponent(sizes: list[int], values: list[float]) -> float:
    """p of values ~ size^p, by least squares on the logarithms."""
    return float(np.polyfit(np.log(sizes), np.log(values), 1)[0])


def print_growth(sizes: Sizes) -> None:
    for letter, values in sizes.items():
        shapes = [resized(letter, value) for value in values]
        measured = [training(shape) for shape in shapes]
        times, peaks = ([float(m[n]) for m in measured] for n in (0, 1))
        rows = [
            [shape, f"{s * 1e3:.1f}", f"{s / v * 1e6:.1f}", f"{p / 2**20:.2f}", f"{p / v / 2**10:.1f}"]
            for shape, v, s, p in zip(shapes, values, times, peaks, strict=True)
        ]
        rows.append(
            ["exponent", f"{exponent(list(values), times):.2f}", "", f"{exponent(list(values), peaks):.2f}", ""]
        )
        print_table(
            f"Training with {letter} (LSTM, float64: forward, loss and BPTT)",
            ["T, B, D, H", "ms", f"us per {letter}", "peak MiB", f"KiB per {letter}"],
            rows,
        )
    rows = []
    for value in sizes["T"]:
        s, peak, outputs = prediction(resized("T", value))
        apart = f"{(peak - outputs) / 2**10:.1f}"
        rows.append([value, f"{s * 1e3:.1f}", f"{s / value * 1e6:.1f}", f"{outputs / 2**10:.1f}", apart])
    print_table(
        "model.predict with T (LSTM, float64; B, D, H = 8, 8, 32)",
        ["T", "ms", "us per T", "outputs KiB", "peak KiB apart from the outputs"],
        rows,
    )
