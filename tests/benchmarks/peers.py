"""Two other ways to write an LSTM in NumPy, for comparison: as most from-scratch code does, and for speed alone."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from rnnlab.ops import Array, sigmoid

from .models import Shape, Work, model, pass_data


def plain_pass(W: Array, b: Array, x: Array, d_h_out: Array) -> tuple[Array, Array, Array]:
    """(dL/dW, dL/db, dL/dx) for W (H + D, 4H) and b (4H,), gates in the order i f g o, from a zero state.

    At each step it multiplies a fresh [h, x] (B, H + D) with all gates' weights, cuts the result (B, 4H)
    into strided gates, and on the way back adds one weight gradient more.
    """
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


def tuned_pass(W_x: Array, W_h: Array, b: Array, x: Array, d_h: Array) -> Callable[[], tuple[Array, Array, Array]]:
    """What readable code gives away: the same gradients, as a function that works in arrays it keeps.

    Its loops make no array, one exp serves all four gates (tanh(a) = 2 sigmoid(2 a) - 1, which loses
    small values), local derivatives are taken of the four gates at once, and nothing is checked.
    """
    (T, B, D), (K, _, H), dtype = x.shape, W_h.shape, x.dtype
    gates, d_a, states, u = (np.zeros(s, dtype) for s in ((K, T, B, H), (K, T, B, H), (2, T + 1, B, H), (T, B, H)))
    a, local, one, other, d_c, d_next = (np.empty(s, dtype) for s in (*[(K, B, H)] * 2, *[(B, H)] * 4))
    joined, exponents = np.empty((B, K, H), dtype), np.array([-1, -1, -2, -1], dtype)[:, None, None]
    rows, (h, c) = (x.reshape(-1, D), d_a.reshape(K, -1, H)), states

    def forward() -> None:
        np.matmul(rows[0], W_x, out=gates.reshape(K, -1, H))
        np.add(gates, b[:, None], out=gates)
        for t in range(T):
            i, f, g, o = gates_t = gates[:, t]
            np.matmul(h[t], W_h, out=a)
            np.add(a, gates_t, out=a)
            np.multiply(a, exponents, out=a)
            np.exp(a, out=a)
            np.add(a, 1, out=a)
            np.divide(1, a, out=gates_t)
            np.multiply(g, 2, out=g)
            np.subtract(g, 1, out=g)
            np.multiply(f, c[t], out=c[t + 1])
            np.multiply(i, g, out=one)
            np.add(c[t + 1], one, out=c[t + 1])
            np.multiply(c[t + 1], -2, out=one)
            np.exp(one, out=one)
            np.add(one, 1, out=one)
            np.divide(2, one, out=u[t])
            np.subtract(u[t], 1, out=u[t])
            np.multiply(o, u[t], out=h[t + 1])

    def backward() -> tuple[Array, Array, Array]:
        transposed = np.ascontiguousarray(W_h.mT).reshape(-1, H)
        d_c.fill(0)
        d_next.fill(0)
        for t in reversed(range(T)):
            (i, f, g, o), d_a_t = gates[:, t], d_a[:, t]
            np.add(d_next, d_h[t], out=one)
            np.multiply(gates[:, t], gates[:, t], out=local)
            np.subtract(gates[:, t], local, out=local)
            np.multiply(g, g, out=local[2])
            np.subtract(1, local[2], out=local[2])
            np.multiply(u[t], u[t], out=other)
            np.subtract(1, other, out=other)
            np.multiply(other, o, out=other)
            np.multiply(other, one, out=other)
            np.add(d_c, other, out=d_c)
            np.multiply(d_c, g, out=d_a_t[0])
            np.multiply(d_c, c[t], out=d_a_t[1])
            np.multiply(d_c, i, out=d_a_t[2])
            np.multiply(one, u[t], out=d_a_t[3])
            np.multiply(d_a_t, local, out=d_a_t)
            np.multiply(d_c, f, out=d_c)
            np.copyto(joined.swapaxes(0, 1), d_a_t)
            np.matmul(joined.reshape(B, -1), transposed, out=d_next)
        d_x = join_gates(d_a.reshape(K, -1, H)) @ join_gates(W_x).T
        left = np.concatenate((h[:-1].reshape(-1, H), rows[0]), axis=1)
        d_b = np.ones(T * B, dtype) @ rows[1]
        return join_gates(left.T @ rows[1]), d_b.ravel(), d_x.reshape(x.shape)

    def work() -> tuple[Array, Array, Array]:
        forward()
        return backward()

    return work


def peers_pass(way: str, shape: Shape, dtype: str) -> Work:
    """Forward and backward alone, "plain" or "tuned"; returns (dL/dW as (H + D, 4H), dL/db (4H,), dL/dx)."""
    params, (x, d_h) = model("LSTM", shape, dtype).cells[0].params, pass_data(shape, dtype)
    W_x, W_h, b = params["W_x"], params["W_h"], params["b"]
    if way == "tuned":
        return tuned_pass(W_x, W_h, b, x, d_h)
    W = join_gates(np.concatenate((W_h, W_x), axis=1))
    return lambda: plain_pass(W, b.ravel(), x, d_h)


def join_gates(W: Array) -> Array:
    """(K, N, H) to (N, K*H)."""
    return np.concatenate(tuple(W), axis=1)


def check_peers(way: str, shape: Shape, dtype: str) -> None:
    """Raise AssertionError unless its gradients are rnnlab's, twice."""
    cell, (x, d_h) = model("LSTM", shape, dtype).cells[0], pass_data(shape, dtype)
    grads = cell.backward(cell.forward(x), d_h)
    tolerance = 1e-10 if dtype == "float64" else 1e-3
    joined = join_gates(np.concatenate((grads.params["W_h"], grads.params["W_x"]), axis=1))
    work = peers_pass(way, shape, dtype)
    for dW, db, dx in (work(), work()):  # what a second run finds of the first must not matter
        for found, exact in ((dW, joined), (db, grads.params["b"].ravel()), (dx, np.asarray(grads.x))):
            np.testing.assert_allclose(found, exact, rtol=0, atol=tolerance * np.abs(exact).max())
