"""An LSTM as most from-scratch code writes it, for comparison: correct, and slow for three reasons.

At each step it multiplies a fresh [h, x] (B, H + D) with all gates' weights (H + D, 4H), cuts the result
(B, 4H) into strided gates, and on the way back adds one weight gradient more.
"""

from __future__ import annotations

import numpy as np

from rnnlab.ops import Array, sigmoid

from .models import Shape, Work, model, pass_data


def lstm_pass(W: Array, b: Array, x: Array, d_h_out: Array) -> tuple[Array, Array, Array]:
    """(dL/dW, dL/db, dL/dx) for W (H + D, 4H) and b (4H,), gates in the order i f g o, from a zero state."""
    T, B, _ = x.shape
    H = len(b) // 4
    h, c = np.zeros((B, H), x.dtype), np.zeros((B, H), x.dtype)
    cache = []
    for t in range(T):
        joined = np.concatenate((h, x[t]), axis=1)
        a = joined @ W + b
        i, f, o = sigmoid(a[:, :H]), sigmoid(a[:, H : 2 * H]), sigmoid(a[:, 3 * H :])
        g = np.tanh(a[:, 2 * H : 3 * H])
        cache.append((joined, c, i, f, g, o))
        c = f * c + i * g
        h = o * np.tanh(c)
    dW, db, dx = np.zeros_like(W), np.zeros_like(b), np.zeros_like(x)
    dh, dc = np.zeros_like(h), np.zeros_like(c)
    for t in reversed(range(T)):
        joined, c, i, f, g, o = cache[t]
        u = np.tanh(f * c + i * g)
        dh = dh + d_h_out[t]
        dc = dc + dh * o * (1 - u**2)
        da = np.concatenate(
            (dc * g * i * (1 - i), dc * c * f * (1 - f), dc * i * (1 - g**2), dh * u * o * (1 - o)), axis=1
        )
        dW += joined.T @ da
        db += da.sum(axis=0)
        d_joined = da @ W.T
        dh, dx[t] = d_joined[:, :H], d_joined[:, H:]
        dc = dc * f
    return dW, db, dx


def peers_weights(shape: Shape, dtype: str) -> tuple[Array, Array]:
    """The weights of `model`, as (H + D, 4H) and (4H,)."""
    params = model("LSTM", shape, dtype).cells[0].params
    return join_gates(np.concatenate((params["W_h"], params["W_x"]), axis=1)), params["b"].ravel()


def join_gates(W: Array) -> Array:
    """(K, N, H) to (N, K*H)."""
    return np.concatenate(tuple(W), axis=1)


def peers_pass(shape: Shape, dtype: str) -> Work:
    """Forward and backward alone, with dL/dx; returns all three gradients."""
    (W, b), (x, d_h) = peers_weights(shape, dtype), pass_data(shape, dtype)
    return lambda: lstm_pass(W, b, x, d_h)


def check_peers(shape: Shape, dtype: str) -> None:
    """Raise AssertionError unless the plain loop's gradients are rnnlab's."""
    dW, db, dx = peers_pass(shape, dtype)()
    cell, (x, d_h) = model("LSTM", shape, dtype).cells[0], pass_data(shape, dtype)
    grads = cell.backward(cell.forward(x), d_h)
    tolerance = 1e-10 if dtype == "float64" else 1e-3
    joined = join_gates(np.concatenate((grads.params["W_h"], grads.params["W_x"]), axis=1))
    for found, exact in ((dW, joined), (db, grads.params["b"].ravel()), (dx, np.asarray(grads.x))):
        np.testing.assert_allclose(found, exact, rtol=0, atol=tolerance * np.abs(exact).max())
