"""What is timed: one pass, or one whole training step, in rnnlab and in PyTorch, with equal weights and data.

Every function here returns a function without arguments that does the work once. PyTorch gets what is
fastest for it: the fused Adam, and rows of an identity matrix for one-hot input.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

import rnnlab as rl
from rnnlab.interop import to_pytorch
from rnnlab.ops import Array

KINDS = ("LSTM", "GRU", "RNN")
DTYPES = ("float64", "float32")
LEARNING_RATE, CLIP_NORM = 1e-3, 1.0

Work = Callable[[], Any]


@dataclass(frozen=True)
class Shape:
    """T steps, batch B, D inputs, H units. A text model reads and predicts one of D characters at every
    step; the others read D numbers and predict one number at the last step."""

    T: int
    B: int
    D: int
    H: int
    text: bool = field(default=False, kw_only=True)

    def __str__(self) -> str:
        return f"{self.T}, {self.B}, {self.D}, {self.H}" + (" text" if self.text else "")

    @property
    def outputs(self) -> int:
        return self.D if self.text else 1


PASSES = (
    Shape(100, 1, 8, 16),
    Shape(100, 16, 8, 32),
    Shape(100, 32, 32, 64),
    Shape(100, 32, 64, 128),
    Shape(50, 64, 128, 256),
)
STEPS = (Shape(50, 32, 2, 32), Shape(100, 32, 2, 64), Shape(100, 32, 8, 64), Shape(64, 32, 96, 128, text=True))
SAMPLING = tuple(Shape(500, 1, 96, H, text=True) for H in (32, 64, 128))
QUICK_PASSES = (Shape(5, 2, 3, 4),)
QUICK_STEPS = (Shape(5, 2, 3, 4), Shape(5, 2, 3, 4, text=True))


def import_torch() -> Any:
    """PyTorch, or a message that says how to get it."""
    try:
        import torch
    except ImportError as error:
        raise SystemExit(
            "The comparison needs PyTorch, which is not installed: pip install 'rnnlab[interop]'. "
            "Without it: --only profile,growth,peers,import"
        ) from error
    return torch


def model(kind: str, shape: Shape, dtype: str) -> rl.SequenceModel:
    cell = getattr(rl, f"{kind}Cell")(shape.D, shape.H, rng=0, dtype=dtype)
    loss = rl.softmax_cross_entropy if shape.text else rl.mean_squared_error
    return rl.SequenceModel(cell, rl.Dense(shape.H, shape.outputs, rng=1, dtype=dtype), loss)


def batch(shape: Shape, dtype: str) -> rl.Batch:
    T, B, D = shape.T, shape.B, shape.D
    rng = np.random.default_rng(2)
    if shape.text:
        return rl.Batch(rng.integers(0, D, (T, B)), rng.integers(0, D, (T, B)))
    last = np.zeros((T, B), bool)
    last[-1] = True
    return rl.Batch(rng.normal(size=(T, B, D)).astype(dtype), rng.normal(size=(T, B, 1)).astype(dtype), last)


def torch_cell(kind: str, shape: Shape, dtype: str) -> Any:
    """torch.nn.LSTM, GRU or RNN with the weights of `model`."""
    torch = import_torch()
    cell = getattr(torch.nn, kind)(shape.D, shape.H, dtype=getattr(torch, dtype))
    weights = to_pytorch(model(kind, shape, dtype).cells[0])
    cell.load_state_dict({name: torch.tensor(value) for name, value in weights.items()})
    return cell


def rnnlab_step(kind: str, shape: Shape, dtype: str) -> Work:
    """Forward, BPTT, clip, Adam; returns the loss."""
    trainer = rl.Trainer(model(kind, shape, dtype), rl.Adam(LEARNING_RATE), clip_norm=CLIP_NORM)
    data = batch(shape, dtype)
    return lambda: trainer.train_step(data)


def torch_step(kind: str, shape: Shape, dtype: str) -> Work:
    torch = import_torch()
    cell, data, readout = torch_cell(kind, shape, dtype), batch(shape, dtype), model(kind, shape, dtype).readout
    linear = torch.nn.Linear(shape.H, shape.outputs, dtype=getattr(torch, dtype))
    linear.load_state_dict(
        {"weight": torch.tensor(readout.params["W"].T), "bias": torch.tensor(readout.params["b"][0])}
    )
    parameters = [*cell.parameters(), *linear.parameters()]
    optimizer = torch.optim.Adam(parameters, LEARNING_RATE, fused=True)
    x, y, one_hot = torch.tensor(data.x), torch.tensor(data.y), torch.eye(shape.D, dtype=getattr(torch, dtype))
    functional = torch.nn.functional

    def step() -> float:
        optimizer.zero_grad()
        if shape.text:
            h, _ = cell(functional.embedding(x, one_hot))
            loss = functional.cross_entropy(linear(h).reshape(-1, shape.D), y.reshape(-1))
        else:
            h, _ = cell(x)
            loss = functional.mse_loss(linear(h[-1]), y[-1])
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, CLIP_NORM)
        optimizer.step()
        return float(loss.detach())

    return step


def pass_data(shape: Shape, dtype: str) -> tuple[Array, Array]:
    """x (T, B, D) and dL/dh (T, B, H)."""
    (T, B, D, H), rng = (shape.T, shape.B, shape.D, shape.H), np.random.default_rng(3)
    return rng.normal(size=(T, B, D)).astype(dtype), rng.normal(size=(T, B, H)).astype(dtype)


def rnnlab_pass(kind: str, shape: Shape, dtype: str) -> Work:
    """Forward and backward alone, with dL/dx; returns dL/dx."""
    cell, (x, d_h) = model(kind, shape, dtype).cells[0], pass_data(shape, dtype)
    return lambda: cell.backward(cell.forward(x), d_h).x


def torch_pass(kind: str, shape: Shape, dtype: str) -> Work:
    cell = torch_cell(kind, shape, dtype)
    x, d_h = map(import_torch().tensor, pass_data(shape, dtype))
    x.requires_grad_()

    def forward_and_backward() -> Any:
        x.grad = None
        cell.zero_grad()
        cell(x)[0].backward(d_h)
        return x.grad

    return forward_and_backward


def rnnlab_sampling(kind: str, shape: Shape, dtype: str) -> Work:
    """What sampling does T times: one character in, its scores and the state out; returns the last scores."""
    text, x, state = model(kind, shape, dtype), np.zeros((1, 1), int), None

    def characters() -> Any:
        nonlocal state
        for _ in range(shape.T):
            y, state = text.predict(x, state)
        return y

    return characters


def torch_sampling(kind: str, shape: Shape, dtype: str) -> Work:
    torch, cell, readout = import_torch(), torch_cell(kind, shape, dtype), model(kind, shape, dtype).readout
    W, b = (torch.tensor(readout.params[name]) for name in ("W", "b"))
    x, one_hot, state = torch.zeros((1, 1), dtype=torch.int64), torch.eye(shape.D, dtype=W.dtype), None

    def characters() -> Any:
        nonlocal state
        with torch.no_grad():
            for _ in range(shape.T):
                h, state = cell(one_hot[x], state)
                y = torch.nn.functional.linear(h, W.T, b[0])
        return y

    return characters


def seconds(work: Work, clock: Callable[[], float] = time.perf_counter) -> float:
    start = clock()
    work()
    return clock() - start


def rounds(works: Sequence[Work], n: int) -> Array:
    """CPU seconds (n, len(works)), taken in turn (A B A B ...) after three turns that do not count.

    For one thread, CPU time is what a quiet machine's clock would show; other programs disturb it less.
    """
    return np.array([[seconds(work, time.process_time) for work in works] for _ in range(n + 3)])[3:]


def spread(ratios: Array) -> str:
    """A median with its range: 2.06 (1.93 - 2.31)."""
    return f"{np.median(ratios):.2f} ({ratios.min():.2f} - {ratios.max():.2f})"


def print_table(title: str, header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """A Markdown table with aligned columns."""
    lines = [list(map(str, row)) for row in (header, *rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    lines.insert(1, ["-" * width for width in widths])
    print(f"\n## {title}\n")
    for line in lines:
        print("| " + " | ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)) + " |")
    print(flush=True)
