"""The README's figure: python -m rnnlab.experiments.figure notebooks/gradient-flow.png draws it anew."""

from __future__ import annotations

import sys

import numpy as np

from rnnlab.cells import Cell, FourGateLSTMCell, GRUCell, GRUResetBeforeCell, LSTMCell, RNNCell
from rnnlab.gradnorm import state_norms
from rnnlab.init import chrono
from rnnlab.ops import Array

T, B, D, H = 100, 16, 8, 64


def starts() -> dict[str, Cell]:
    """Untrained cells by label: the five with their default start, and three with a start made for long memories."""
    b = chrono(T, H, rng=1)
    return {
        "RNN": RNNCell(D, H, rng=0),
        "RNN, orthogonal": RNNCell(D, H, rng=0, recurrent_init="orthogonal"),
        "LSTM": LSTMCell(D, H, rng=0),
        "LSTM, chrono": LSTMCell(D, H, rng=0, forget_bias=b, input_bias=-b),
        "four-gate LSTM": FourGateLSTMCell(D, H, rng=0),
        "GRU": GRUCell(D, H, rng=0),
        "GRU, chrono": GRUCell(D, H, rng=0, update_bias=b),
        "GRU reset before": GRUResetBeforeCell(D, H, rng=0),
    }


def gradient_at_each_step(cell: Cell) -> dict[str, Array]:
    """||dL/dstate_t||, t = 0 .. T, by state, for a loss that is the sum of the last output, on random inputs."""
    tape = cell.forward(np.random.default_rng(0).normal(size=(T, B, D)))
    d_h = np.zeros_like(tape.h)
    d_h[-1] = 1
    return state_norms(cell, tape, cell.backward(tape, d_h))


def draw(path: str) -> None:
    """Save the gradient of each start's memory, c where it has one, against time."""
    import matplotlib.pyplot as plt

    from rnnlab.plots import gradient_flow

    norms = {label: gradient_at_each_step(cell) for label, cell in starts().items()}
    memory = {f"{label}: c" if "c" in one else label: one.get("c", one["h"]) for label, one in norms.items()}
    figure, ax = plt.subplots(figsize=(7.5, 4.4), layout="constrained")
    gradient_flow(memory, relative=True, quantity="norm of dL/dmemory$_t$", ax=ax)
    figure.savefig(path, dpi=120)
    plt.close(figure)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit("usage: python -m rnnlab.experiments.figure FILE.png")
    draw(sys.argv[1])
