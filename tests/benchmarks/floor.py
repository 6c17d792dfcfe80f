"""The floor under a training step, and where its time goes.

The floor is what no NumPy program can leave out: the matrix products, with the gates fused and the outputs
allocated beforehand, and one exp for each activated number (sigmoid and tanh need one each, and a softmax),
at the shapes and in the dtype of the step. No elementwise arithmetic, no copies, no checks.
"""

from __future__ import annotations

from functools import partial

import numpy as np

import rnnlab as rl

from .models import CLIP_NORM, DTYPES, LEARNING_RATE, Shape, Work, batch, model, print_table, rounds

GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}
ACTIVATIONS = {"RNN": 1, "GRU": 3, "LSTM": 5}  # of one unit in one step: the gates, and an LSTM's tanh(c)


def cell_products(kind: str, shape: Shape, dtype: str) -> Work:
    """x W_x, T times h W_h, T times d_a W_h^T, and the two weight gradients; integers select rows instead."""
    T, B, D, H, KH = shape.T, shape.B, shape.D, shape.H, GATES[kind] * shape.H
    rng = np.random.default_rng(0)
    x, h, a = (rng.normal(size=(T, B, n)).astype(dtype) for n in (D, H, KH))
    W_x, W_h, W_h_transposed = (rng.normal(size=s).astype(dtype) for s in ((D, KH), (H, KH), (KH, H)))
    out_a, out_h, out_W_x, out_W_h = np.empty_like(a), np.empty_like(h), np.empty_like(W_x), np.empty_like(W_h)

    def work() -> None:
        if not shape.text:
            np.matmul(x.reshape(-1, D), W_x, out=out_a.reshape(-1, KH))
        for t in range(T):
            np.matmul(h[t], W_h, out=out_a[t])
        for t in range(T):
            np.matmul(a[t], W_h_transposed, out=out_h[t])
        np.matmul(h.reshape(-1, H).T, a.reshape(-1, KH), out=out_W_h)
        if not shape.text:
            np.matmul(x.reshape(-1, D).T, a.reshape(-1, KH), out=out_W_x)

    return work


def cell_activations(kind: str, shape: Shape, dtype: str) -> Work:
    a = np.random.default_rng(0).normal(size=(shape.T, ACTIVATIONS[kind], shape.B, shape.H)).astype(dtype)
    out = np.empty_like(a)

    def work() -> None:
        for t in range(shape.T):
            np.exp(a[t], out=out[t])

    return work


def readout_floor(shape: Shape, dtype: str) -> Work:
    """The readout's three products, where the loss reads it, and a text model's softmax."""
    rows = shape.T * shape.B if shape.text else shape.B
    rng = np.random.default_rng(0)
    h, W, y = (
        rng.normal(size=s).astype(dtype) for s in ((rows, shape.H), (shape.H, shape.outputs), (rows, shape.outputs))
    )
    out_h, out_W, out_y = np.empty_like(h), np.empty_like(W), np.empty_like(y)

    def work() -> None:
        np.matmul(h, W, out=out_y)
        if shape.text:
            np.exp(y, out=out_y)
        np.matmul(h.T, y, out=out_W)
        np.matmul(y, W.T, out=out_h)

    return work


def floor_step(kind: str, shape: Shape, dtype: str) -> Work:
    parts = cell_products(kind, shape, dtype), cell_activations(kind, shape, dtype), readout_floor(shape, dtype)
    return lambda: [part() for part in parts]


def profile(kind: str, shape: Shape, dtype: str, n: int) -> dict[str, float]:
    """Milliseconds of a training step by what they are spent on, from the least of n runs of each part.

    Products, activations and copies are timed alone; the arithmetic between them is what is left of
    `forward` and `backward`, the rest what is left of the whole step.
    """
    net, data = model(kind, shape, dtype), batch(shape, dtype)
    cell, readout, optimizer = net.cells[0], net.readout, rl.Adam(LEARNING_RATE)
    trainer = rl.Trainer(model(kind, shape, dtype), rl.Adam(LEARNING_RATE), clip_norm=CLIP_NORM)
    result = net.loss_and_grads(data)
    tape, d_states = result.tapes[0], result.cell_grads[0].states
    kept = slice(None) if shape.text else slice(-1, None)
    mask = None if data.mask is None else data.mask[kept]
    h = tape.h[kept]
    d_h = np.zeros_like(tape.h)
    copies = [np.empty_like(array) for array in (tape.gates, tape.extras, tape.gates, tape.states, d_states)]

    def readout_and_loss() -> None:
        _, d_y = net.loss(readout.forward(h), data.y[kept], mask)
        readout.backward(h, d_y)

    def copy_to_tape() -> None:
        for t in range(shape.T):
            for array in copies[:3]:
                for part in array:
                    part[t] = tape.gates[0, t]
            for array in copies[3:]:
                for part in array[t]:
                    part[...] = tape.gates[0, t]

    def clip_and_update() -> None:
        optimizer.step(net.params, rl.clip_by_global_norm(result.grads, CLIP_NORM)[0])

    works = {
        "whole": lambda: trainer.train_step(data),
        "cells": lambda: cell.backward(cell.forward(data.x), d_h, input_gradient=False),
        "matrix products": cell_products(kind, shape, dtype),
        "activations": cell_activations(kind, shape, dtype),
        "copies to the tape": copy_to_tape,
        "readout and loss": readout_and_loss,
        "clip and Adam": clip_and_update,
    }
    least = dict(zip(works, rounds(list(works.values()), n).min(axis=0) * 1e3, strict=True))
    parts = {name: least[name] for name in ("matrix products", "activations", "copies to the tape")}
    parts["arithmetic between"] = least["cells"] - sum(parts.values())
    parts |= {name: least[name] for name in ("readout and loss", "clip and Adam")}
    parts["the rest"] = least["whole"] - sum(parts.values())
    return parts


def print_profiles(kinds: tuple[str, ...], shapes: tuple[Shape, ...], n: int) -> None:
    rows = []
    for kind in kinds:
        for dtype in DTYPES:
            for shape in shapes:
                parts = profile(kind, shape, dtype, n)
                whole = sum(parts.values())
                rows.append([kind, dtype, shape, f"{whole:.2f}", *(f"{part / whole:.0%}" for part in parts.values())])
    print_table(
        "Where a training step's time goes (rnnlab, one thread, least of the runs; activations at one exp each)",
        ["cell", "dtype", "T, B, D, H", "ms", *parts],
        rows,
    )


def print_exp_and_tanh() -> None:
    """What one number costs: without AVX-512, NumPy computes float64 exp and tanh one by one."""
    for dtype in DTYPES:
        x = np.random.default_rng(0).normal(size=(32, 64)).astype(dtype)
        out = np.empty_like(x)
        cost = {name: rounds([partial(getattr(np, name), x, out=out)], 500).min() for name in ("exp", "tanh")}
        print(f"{dtype}: " + ", ".join(f"{name} {s / x.size * 1e9:.1f} ns" for name, s in cost.items()) + " a number")
