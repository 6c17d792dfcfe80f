"""`diagnose`: the line of a learner's own code, whatever its layout, and nothing that a run has not shown."""

from __future__ import annotations

import copy
import doctest
import pickle
import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from cases import refuses
from learners import cases, judge

import rnnlab as rl
from rnnlab.diagnosis import edits, rules
from rnnlab.ops import sigmoid

# ---- a step with packed gates, and its sequence -----------------------------------------------


def step_forward(x: Any, h: Any, c: Any, Wx: Any, Wh: Any, b: Any) -> Any:
    H = h.shape[1]
    a = x @ Wx + h @ Wh + b
    i, f, o, g = sigmoid(a[:, :H]), sigmoid(a[:, H : 2 * H]), sigmoid(a[:, 2 * H : 3 * H]), np.tanh(a[:, 3 * H :])
    c_next = f * c + i * g
    u = np.tanh(c_next)
    return o * u, c_next, (x, h, c, Wx, Wh, i, f, o, g, u)


def step_backward(dh: Any, dc: Any, cache: Any) -> Any:
    x, h, c, Wx, Wh, i, f, o, g, u = cache
    dc = dc + dh * o * (1 - u**2)
    da = np.hstack((dc * g * i * (1 - i), dc * c * f * (1 - f), dh * u * o * (1 - o), dc * i * (1 - g**2)))
    return da @ Wx.T, da @ Wh.T, dc * f, x.T @ da, h.T @ da, da.sum(axis=0)


def step_without_slope(dh: Any, dc: Any, cache: Any) -> Any:
    x, h, c, Wx, Wh, i, f, o, g, u = cache
    dc = dc + dh * o * (1 - u**2)
    df = dc * c * f
    da = np.hstack((dc * g * i * (1 - i), df, dh * u * o * (1 - o), dc * i * (1 - g**2)))
    return da @ Wx.T, da @ Wh.T, dc * f, x.T @ da, h.T @ da, da.sum(axis=0)


def step_exchanged(dh: Any, dc: Any, cache: Any) -> Any:
    x, h, c, Wx, Wh, i, f, o, g, u = cache
    dc = dc + dh * o * (1 - u**2)
    da = np.hstack((dc * g * i * (1 - i), dc * c * f * (1 - f), dh * u * o * (1 - o), dc * i * (1 - g**2)))
    return da @ Wx.T, da @ Wh.T, dc * f, h.T @ da, x.T @ da, da.sum(axis=0)


def rnn_forward(x: Any, h0: Any, weights: Any) -> Any:
    hs = [h0]
    for t in range(x.shape[1]):
        hs.append(np.tanh(x[:, t] @ weights["Wx"] + hs[-1] @ weights["Wh"] + weights["b"]))
    return np.stack(hs[1:], axis=1), (x, hs, weights)


def rnn_backward(dh: Any, cache: Any) -> Any:
    x, hs, weights = cache
    grads = {"d" + name: np.zeros_like(w) for name, w in weights.items()}
    dx, carried = np.zeros_like(x), np.zeros_like(hs[0])
    for t in reversed(range(x.shape[1])):
        da = (dh[:, t] + carried) * (1 - hs[t + 1] ** 2)
        grads["dWx"] += x[:, t].T @ da
        grads["dWh"] += hs[t].T @ da
        grads["db"] += da.sum(axis=0)
        dx[:, t] = da @ weights["Wx"].T
        carried = da @ weights["Wh"].T
    return {**grads, "dx": dx, "dh0": carried}


def rnn_overwrites(dh: Any, cache: Any) -> Any:
    x, hs, weights = cache
    grads = {"d" + name: np.zeros_like(w) for name, w in weights.items()}
    dx, carried = np.zeros_like(x), np.zeros_like(hs[0])
    for t in reversed(range(x.shape[1])):
        da = (dh[:, t] + carried) * (1 - hs[t + 1] ** 2)
        grads["dWx"] += x[:, t].T @ da
        grads["dWh"] = hs[t].T @ da
        grads["db"] += da.sum(axis=0)
        dx[:, t] = da @ weights["Wx"].T
        carried = da @ weights["Wh"].T
    return {**grads, "dx": dx, "dh0": carried}


def draw(*shape: int) -> Any:
    return np.random.default_rng(0).normal(size=shape)


STEP = (draw(2, 3), draw(2, 4), draw(2, 4), draw(3, 16), draw(4, 16), draw(16))
SEQUENCE = (draw(2, 5, 3), draw(2, 4), {"Wx": draw(3, 4), "Wh": draw(4, 4), "b": draw(4)})


def test_right_functions_are_blamed_for_nothing_and_pass_the_gradient_check() -> None:
    for functions in ((step_forward, step_backward, STEP), (rnn_forward, rnn_backward, SEQUENCE)):
        assert rl.diagnose(*functions).ok, str(rl.diagnose(*functions))
        assert rl.check_gradients(*functions).max_error < 1e-6


@pytest.mark.parametrize(
    ("functions", "line", "says"),
    [
        ((step_forward, step_without_slope, STEP), "df = dc * c * f * (1 - f)", r"factor is missing: \(1 - f\)"),
        (
            (step_forward, step_exchanged, STEP),
            "return (da @ Wx.T, da @ Wh.T, dc * f, x.T @ da, h.T @ da, da.sum(axis=0))",
            "h.T @ da and x.T @ da are exchanged",
        ),
        ((rnn_forward, rnn_overwrites, SEQUENCE), "grads['dWh'] += hs[t].T @ da", r"overwritten"),
    ],
)
def test_a_wrong_function_is_shown_mended(functions: Any, line: str, says: str) -> None:
    (finding,) = rl.diagnose(*functions).findings
    assert finding.repair == line
    assert finding.function == functions[1].__name__
    assert re.search(says, finding.what), finding.what
    with pytest.raises((rl.GradientMismatch, ValueError)):
        rl.check_gradients(*functions)


# ---- one function with the loss inside --------------------------------------------------------

Wxh, Whh, Why, bh, by = draw(6, 5), 0.3 * draw(6, 6), draw(5, 6), draw(6, 1), draw(5, 1)


def character_loss(inputs: Any, targets: Any, hprev: Any) -> Any:
    xs, hs, ps, loss = {}, {-1: np.copy(hprev)}, {}, 0.0
    for t in range(len(inputs)):
        xs[t] = np.zeros((5, 1))
        xs[t][inputs[t]] = 1
        hs[t] = np.tanh(Wxh @ xs[t] + Whh @ hs[t - 1] + bh)
        y = Why @ hs[t] + by
        ps[t] = np.exp(y) / np.sum(np.exp(y))
        loss += -np.log(ps[t][targets[t], 0])
    dWxh, dWhh, dWhy = np.zeros_like(Wxh), np.zeros_like(Whh), np.zeros_like(Why)
    dbh, dby, dhnext = np.zeros_like(bh), np.zeros_like(by), np.zeros_like(hs[0])
    for t in reversed(range(len(inputs))):
        dy = np.copy(ps[t])
        dy[targets[t]] -= 1
        dWhy += dy @ hs[t].T
        dby += dy
        dh = Why.T @ dy + dhnext
        draw_ = dh * SLOPE(hs[t])
        dbh += draw_
        dWxh += draw_ @ xs[t].T
        dWhh += draw_ @ hs[t - 1].T
        dhnext = Whh.T @ draw_
    for d in (dWxh, dWhh, dWhy, dbh, dby):
        np.clip(d, -5, 5, out=d)
    return loss, dWxh, dWhh, dWhy, dbh, dby, hs[len(inputs) - 1]


def right_slope(h: Any) -> Any:
    return 1 - h * h


def wrong_slope(h: Any) -> Any:
    return 1 - np.tanh(h) ** 2


SLOPE = right_slope
TEXT = ([0, 1, 4, 2], [1, 4, 2, 3], np.zeros((6, 1)))


def test_a_loss_function_with_globals_is_right_though_it_clips() -> None:
    assert rl.diagnose(character_loss, *TEXT).ok, str(rl.diagnose(character_loss, *TEXT))
    assert rl.check_gradients(character_loss, *TEXT).max_error < 1e-6


def test_a_wrong_helper_of_a_loss_function_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(globals(), "SLOPE", wrong_slope)
    weights = {name: globals()[name].copy() for name in ("Wxh", "Whh", "Why", "bh", "by")}
    (finding,) = rl.diagnose(character_loss, *TEXT).findings
    assert finding.line is not None
    assert finding.repair is not None
    assert "1 - " in finding.repair
    assert all(np.array_equal(globals()[name], w) for name, w in weights.items())  # put back as they were


# ---- cells ------------------------------------------------------------------------------------


class NoSlope(rl.LSTMCell):
    def step_backward(self, d_next: Any, prev: Any, gates: Any, extras: Any) -> Any:
        (d_h, d_c), (h, c), (i, f, g, o), (u,) = d_next, prev, gates, extras
        d_c = d_c + d_h * o * (1 - u**2)
        d_a = (d_c * g * i * (1 - i), d_c * c, d_c * i * (1 - g**2), d_h * u * o * (1 - o))
        return d_a, (self.back(d_a), d_c * f), ()


class InPlace(rl.LSTMCell):
    def step_backward(self, d_next: Any, prev: Any, gates: Any, extras: Any) -> Any:
        (d_h, d_c), (h, c), (i, f, g, o), (u,) = d_next, prev, gates, extras
        d_c += d_h * o * (1 - u**2)
        d_a = (d_c * g * i * (1 - i), d_c * c * f * (1 - f), d_c * i * (1 - g**2), d_h * u * o * (1 - o))
        return d_a, (self.back(d_a), d_c * f), ()


class WrongTanh(rl.LSTMCell):
    def step(self, a: Any, prev: Any) -> Any:
        h, c = prev
        i, f, g, o = a + h @ self.W_h
        i, f, g, o = sigmoid(i), sigmoid(f), np.tanh(g), sigmoid(o)
        c = f * c + i * g
        u = np.tanh(c)
        return (i, f, g, o), (o * c, c), (u,)


def test_the_line_the_text_and_the_term_of_a_cell() -> None:
    report = rl.diagnose(NoSlope(3, 4, rng=0))
    (finding,) = report.findings
    assert finding.text.startswith("d_a = (d_c * g")
    assert "d_c * c * f * (1 - f)" in str(finding.repair)
    assert "the derivative of the sigmoid" in finding.what
    assert finding.function == "NoSlope.step_backward"
    for text in (str(report), report._repr_html_()):
        assert str(finding.line) in text
        assert finding.text[:12] in text
    assert pickle.loads(pickle.dumps(report)) == copy.deepcopy(report) == report


def test_an_argument_that_is_changed_in_place_is_named_with_what_to_write() -> None:
    (finding,) = rl.diagnose(InPlace(3, 4, rng=0)).findings
    assert finding.kind == "in place"
    assert finding.repair == "d_c = d_c + d_h * o * (1 - u ** 2)"


def test_a_forward_pass_that_does_not_belong_to_the_backward_pass_is_named() -> None:
    (finding,) = rl.diagnose(WrongTanh(3, 4, rng=0)).findings
    assert finding.repair == "return ((i, f, g, o), (o * u, c), (u,))"
    assert "do not belong together" in finding.what


def test_a_reference_names_the_line_of_the_forward_pass() -> None:
    (finding,) = rl.diagnose(WrongTanh(3, 4, rng=0), reference=rl.LSTMCell(3, 4, rng=1)).findings
    assert finding.repair == "return ((i, f, g, o), (o * u, c), (u,))"
    assert rl.diagnose(rl.GRUCell(3, 4, rng=0), reference=rl.GRUCell(3, 4, rng=5)).ok
    assert not rl.diagnose(rl.GRUCell(3, 4, rng=0), reference=rl.LSTMCell(3, 4, rng=0)).ok


STEP_WITHOUT_SOURCE = """
def step_backward(self, d_next, prev, gates, extras):
    (dh, dc), (h, c), (i, f, g, o), (u,) = d_next, prev, gates, extras
    dc = dc + dh * o * (1 - u**2)
    d_a = (dc * g * i * (1 - i), dc * c * f * (1 - f), dc * i * (1 - g**2), dh * u * o * (1 - o))
    return d_a, (self.back(d_a), dc * f), ()
"""


def typed(old: str, new: str) -> rl.Cell:
    """An LSTM whose step_backward has no readable source, with one text replaced."""
    assert old in STEP_WITHOUT_SOURCE
    space: dict[str, Any] = {}
    exec(STEP_WITHOUT_SOURCE.replace(old, new), space)
    kind = type("Typed", (rl.LSTMCell,), {"step_backward": space["step_backward"]})
    return kind(3, 4, rng=0)


@pytest.mark.parametrize(
    ("old", "new", "wrong", "states", "should"),
    [
        ("f * (1 - f)", "f", "d_a[forget]", "h and c", "d_a[forget] * (1 - forget)"),
        ("dc * f)", "dc)", "d_prev[c]", "h and c", "d_prev[c] * forget"),
        ("dh * u * o", "dh * o", "d_a[output]", "h", "d_a[output] * tanh_c"),
        ("dc * i * (1 - g**2)", "dc * i", "d_a[candidate]", "h and c", "d_a[candidate] * (1 - candidate ** 2)"),
    ],
)
def test_without_source_the_gate_the_path_and_the_formula_are_told(
    old: str, new: str, wrong: str, states: str, should: str
) -> None:
    (finding,) = rl.diagnose(typed(old, new)).findings
    assert finding.outputs == (wrong,)
    assert finding.what == f"{wrong} is wrong as far as it comes from {states} after the step. It should be `{should}`."
    assert finding.line is None
    assert finding.repair is None
    assert "should be" in finding.numbers


def test_without_source_a_lost_path_is_told_by_the_state_that_it_leaves_from() -> None:
    findings = rl.diagnose(typed("dc = dc + dh * o", "dc = dh * o")).findings
    assert {f.outputs[0] for f in findings} == {"d_a[input]", "d_a[forget]", "d_a[candidate]", "d_prev[c]"}
    assert all("from c after" in f.what for f in findings)


def test_without_source_a_right_step_is_not_blamed() -> None:
    assert rl.diagnose(typed("f * (1 - f)", "(1 - f) * f")).ok


class Endless:
    """Weights that answer every index with themselves, as an object that looks names up may do."""

    def __init__(self, weights: Any) -> None:
        self.weights = weights

    def __getitem__(self, name: Any) -> Any:
        return self.weights[name] if isinstance(name, str) else self

    def __len__(self) -> int:
        return 8


def held(x: Any, W: Any, V: Any) -> tuple[Any, Any]:
    p = Endless({"W": W, "V": V})
    h = np.tanh(x @ p["W"])
    return h @ p["V"], (x, h, p)


def held_backward(d: Any, cache: Any) -> tuple[Any, Any, Any]:
    x, h, p = cache
    da = d @ p["V"].T * (1 - h)
    return da @ p["W"].T, x.T @ da, h.T @ d


def test_an_object_that_can_be_indexed_without_end_is_never_made_an_array() -> None:
    rng = np.random.default_rng(0)
    shapes = [(2, 3), (3, 4), (4, 5)]
    (finding,) = rl.diagnose(held, held_backward, [rng.normal(size=shape) for shape in shapes]).findings
    assert finding.repair == "da = d @ p['V'].T * (1 - h ** 2)"


def test_the_code_and_the_cell_stay_as_they_were() -> None:
    cell = NoSlope(3, 4, rng=0)
    errors = np.geterr()
    code, params = NoSlope.step_backward.__code__, {name: p.copy() for name, p in cell.params.items()}
    first, second = rl.diagnose(cell), rl.diagnose(cell)
    assert first == second
    assert np.geterr() == errors
    assert NoSlope.step_backward.__code__ is code
    assert "__rnnlab_probe__" not in globals()
    assert all(np.array_equal(cell.params[name], p) for name, p in params.items())


def test_a_forward_pass_that_is_not_repeatable_is_no_wrong_derivative() -> None:
    class Noisy(rl.RNNCell):
        def step(self, a: Any, prev: Any) -> Any:
            return super().step(a + 1e-3 * self.rng.normal(size=np.shape(a)), prev)

    (finding,) = rl.diagnose(Noisy(3, 4, rng=0)).findings
    assert finding.kind == "state left over"


# ---- a model ----------------------------------------------------------------------------------


def doubled(prediction: Any, target: Any, mask: Any = None) -> Any:
    loss, d_prediction = rl.mean_squared_error(prediction, target, mask)
    return loss, 2 * d_prediction


def test_a_loss_whose_derivative_is_off_by_two_is_one_finding() -> None:
    model = rl.SequenceModel(rl.RNNCell(3, 4, rng=0), rl.Dense(4, 2, rng=1), doubled)
    batch = rl.Batch(draw(5, 2, 3), draw(5, 2, 2))
    (finding,) = rl.diagnose(model, batch).findings
    assert finding.function == "doubled"
    assert finding.repair == "return (loss, d_prediction)"
    right = rl.SequenceModel(rl.RNNCell(3, 4, rng=0), rl.Dense(4, 2, rng=1), rl.mean_squared_error)
    assert rl.diagnose(right, batch).ok


# ---- refusals ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "name", "call"),
    [
        (TypeError, "target", lambda: rl.diagnose(3)),
        (TypeError, "target", lambda: rl.diagnose(rl.LSTMCell)),
        (ValueError, "T", lambda: rl.diagnose(rl.LSTMCell(3, 4, rng=0), T=0)),
        (TypeError, "rng", lambda: rl.diagnose(rl.LSTMCell(3, 4, rng=0), rng="x")),
        (TypeError, "reference", lambda: rl.diagnose(rl.LSTMCell(3, 4, rng=0), reference=3)),
        (TypeError, "batch", lambda: rl.diagnose(rl.SequenceModel(rl.RNNCell(3, 4), rl.Dense(4, 2), doubled))),
        (TypeError, "forward", lambda: rl.diagnose(right_slope, right_slope, (draw(3),))),
        (TypeError, "target", lambda: rl.diagnose(np.tanh, np.tanh, (draw(3),))),
        (TypeError, "right_slope", lambda: rl.diagnose(right_slope, draw(3))),
    ],
)
def test_what_is_no_target_is_refused_by_name(error: type[Exception], name: str, call: Any) -> None:
    with refuses(error, name):
        call()


def while_backward(dh: Any, cache: Any) -> Any:
    x, hs, weights = cache
    dWh, dx, carried, t = np.zeros_like(weights["Wh"]), np.zeros_like(x), np.zeros_like(hs[0]), x.shape[1] - 1
    while t >= 0:
        da = (dh[:, t] + carried) * (1 - hs[t + 1] ** 2)
        dWh += hs[t + 1].T @ da
        dx[:, t] = da @ weights["Wx"].T
        carried = da @ weights["Wh"].T
        t -= 1
    return {"dWh": dWh, "dx": dx, "dh0": carried}


def test_an_edit_that_makes_a_loop_endless_is_given_up() -> None:
    (finding,) = rl.diagnose(rnn_forward, while_backward, SEQUENCE).findings
    assert finding.repair == "dWh += hs[t].T @ da"


class NamesItsClass(rl.RNNCell):
    def step_backward(self, d_next: Any, prev: Any, gates: Any, extras: Any) -> Any:
        d_a = (d_next[0],)
        return d_a, (super().back(d_a),), ()


def test_a_class_among_the_names_of_a_line_is_no_array() -> None:
    (finding,) = rl.diagnose(NamesItsClass(3, 4, rng=0)).findings
    assert finding.repair == "d_a = (d_next[0] * (1 - gates[0] ** 2),)"


class ReadsBias(rl.RNNCell):
    def step(self, a: Any, prev: Any) -> Any:
        h = np.tanh(a[0] + prev[0] @ self.W_h[0] + self.b[0])
        return (h,), (h,), ()


class UnknownName(rl.RNNCell):
    def recurrent_grads(self, tape: Any, d_a: Any, d_extras: Any) -> Any:
        return super().recurrent_grads(tape, d_a, d_extras) | {"W_hh": np.zeros(3)}


class DoesNotFit(rl.RNNCell):
    def step_backward(self, d_next: Any, prev: Any, gates: Any, extras: Any) -> Any:
        d_a = (d_next[0] * np.ones(7),)
        return d_a, (self.back(d_a),), ()


class ReturnsNothing(rl.RNNCell):
    def step_backward(self, d_next: Any, prev: Any, gates: Any, extras: Any) -> Any:
        pass


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        (UnknownName, r"unknown names \['W_hh'\]"),
        (DoesNotFit, "broadcast.*a gradient has the shape of its array"),
        (ReturnsNothing, "Is its return statement missing"),
        (InPlace, "Make a new one|make a new array"),
    ],
)
def test_what_python_says_comes_with_what_to_do(kind: Any, says: str) -> None:
    with pytest.raises((ValueError, TypeError), match=f"(?i){says}"):
        rl.check_gradients(kind(3, 4, rng=0))
    assert re.search(f"(?i){says}", str(rl.diagnose(kind(3, 4, rng=0))))


def test_a_bias_that_is_added_twice_is_named() -> None:
    (finding,) = rl.diagnose(ReadsBias(3, 4, rng=0)).findings
    assert finding.repair == "h = np.tanh(a[0] + prev[0] @ self.W_h[0])"
    assert "has the bias already" in finding.what
    with pytest.raises(rl.GradientMismatch) as error:
        rl.check_gradients(ReadsBias(3, 4, rng=0))
    assert "step reads self.b" in error.value.__notes__[0]


# ---- learners' code that was looked at --------------------------------------------------------

LOOKED_AT = {case.id: case for case in cases("look")}
SAMPLE = (
    *("packed-step-06", "packed-sequence-01", "packed-sequence-06", "dict-lstm-04", "char-rnn-01", "char-rnn-05"),
    *("gru-loss-06", "relu-calls-01", "relu-calls-06", "cell-rnn-08", "cell-lstm-03", "cell-peephole-02"),
    *(
        "buffers-07",
        "columns-05",
        "layers-02",
        "layers-03",
        "closures-01",
        "closures-07",
        "closures-08",
        "einsum-08",
        "stack-05",
        "scalars-05",
        "closures-09",
        "stack-10",
        "stack-12",
        "cell-layer-norm-01",
        "tokens-05",
        "tokens-09",
        "tokens-10",
    ),
)


@pytest.mark.parametrize("name", SAMPLE)
def test_the_line_of_a_learners_mistake_is_named_and_mended_and_nothing_else(name: str) -> None:
    score = judge(LOOKED_AT[name])
    assert score.line, score.report
    assert score.proven, score.report
    assert not score.false, score.report


def spoilt_backward(dh: Any, cache: Any) -> Any:
    x, hs, weights = cache
    dWh, dx = np.zeros_like(weights["Wh"]), np.zeros_like(x)
    carried = np.zeros_like(hs[0])
    for t in reversed(range(x.shape[1])):
        da = np.empty_like(carried)
        np.multiply(dh[:, t] + carried, 1 - hs[t + 1], out=da)
        dWh += hs[t].T @ da
        dx[:, t] = da @ weights["Wx"].T
        carried = da @ weights["Wh"].T
    return {"dWh": dWh, "dx": dx, "dh0": carried}


def test_no_edit_spoils_the_arrays_for_the_next() -> None:
    (finding,) = rl.diagnose(rnn_forward, spoilt_backward, SEQUENCE).findings
    assert finding.repair == "np.multiply(dh[:, t] + carried, 1 - hs[t + 1] ** 2, out=da)"


def test_large_arrays_are_diagnosed_on_small_ones_and_what_only_they_show_is_found_too() -> None:
    large = (draw(8, 12, 20), draw(8, 16), {"Wx": draw(20, 16), "Wh": draw(16, 16), "b": draw(16)})
    assert rl.diagnose(rnn_forward, rnn_backward, large).ok
    (finding,) = rl.diagnose(rnn_forward, rnn_overwrites, large).findings
    assert finding.repair == "grads['dWh'] += hs[t].T @ da"

    def truncated(dh: Any, cache: Any) -> Any:
        grads = rnn_backward(dh, cache)
        grads["dWx"] *= 1 if dh.shape[1] < 9 else 2
        return grads

    assert not rl.diagnose(rnn_forward, truncated, large).ok


def two_slices(dh: Any, hs: Any) -> Any:
    return np.einsum("tnh,tnk->hk", hs[1:-1], dh[1:])


def product_of_states(x: Any) -> tuple[Any, Any]:
    """The sum over time of h_t V for states that do not depend on V."""
    hs = np.cumsum(np.concatenate((np.ones((1, 2, 3)), np.ones((5, 2, 3)))), axis=0)
    return hs[:-1] @ x, hs


def test_two_slices_of_one_line_that_are_both_one_off() -> None:
    (finding,) = rl.diagnose(product_of_states, two_slices, [np.zeros((3, 4))]).findings
    assert finding.repair == "return np.einsum('tnh,tnk->hk', hs[:-1], dh[:])"


def wrong_shape(d: Any, cache: Any) -> Any:
    x, W = cache
    return d @ W.T, x @ W


def test_a_gradient_of_another_shape_is_told_with_both_shapes() -> None:
    def forward(x: Any, W: Any) -> tuple[Any, Any]:
        return x @ W, (x, W)

    (finding,) = rl.diagnose(forward, wrong_shape, [np.zeros((2, 3)), np.zeros((3, 4))]).findings
    assert "W is (2, 4) and has to be (3, 4)" in finding.what


GLOBAL_V = np.ones((3, 4))
GLOBAL_W = np.ones((3, 4))


def loss_without_a_gradient(x: Any) -> tuple[Any, Any]:
    dGLOBAL_V = x.T @ np.ones((len(x), 4))
    return (x @ GLOBAL_V).sum() + (x @ GLOBAL_W).sum(), dGLOBAL_V


def test_a_weight_of_which_no_gradient_is_returned_is_noted() -> None:
    report = rl.diagnose(loss_without_a_gradient, np.zeros((2, 3)))
    assert report.ok
    assert "no gradient of GLOBAL_W is returned" in report.notes[-1]


def test_the_examples_of_its_help_are_true() -> None:
    (test,) = doctest.DocTestFinder(recurse=False).find(rl.diagnose, "diagnose", globs={"rl": rl, "np": np})
    assert len(test.examples) > 9
    assert doctest.DocTestRunner().run(test).failed == 0


def unnamed(W: Any, b: Any, x: Any) -> Any:
    e = x @ W + b
    dW, delta = x.T @ e, 77 * e.sum(0)
    return (e**2).sum() / 2, dW, delta


def test_a_gradient_whose_array_is_not_known_is_never_passed_in_silence() -> None:
    given = (np.zeros((3, 4)), np.zeros(4), np.zeros((5, 3)))
    assert "whose gradient is delta?" in rl.diagnose(unnamed, *given).notes[0]
    with pytest.raises(ValueError, match="whose gradient is 'delta'"):
        rl.check_gradients(unnamed, *given)


def without_a_name(w: Any) -> Any:
    return (w**2).sum(), 2 * w


def test_functions_without_one_known_gradient_are_refused_with_what_to_write() -> None:
    for check in (rl.diagnose, rl.check_gradients):
        with pytest.raises(TypeError, match=r"without_a_name: expected gradients .* Return loss, dw by these names"):
            check(without_a_name, np.zeros(3))


def mean_of_squares(p: Any) -> Any:
    return (p**2).mean(), {"p": 2 * p}


def test_a_repair_of_one_function_holds_for_arrays_of_other_sizes() -> None:
    (finding,) = rl.diagnose(mean_of_squares, np.zeros((5, 3))).findings
    assert finding.repair == "return ((p ** 2).mean(), {'p': 2 * p / p.size})"


def raises_a_type_error(x: Any) -> Any:
    return ord("ab"), x


def test_a_learners_own_type_error_is_a_finding() -> None:
    (finding,) = rl.diagnose(raises_a_type_error, wrong_shape, [np.zeros(3)]).findings
    assert finding.kind == "exception"
    assert "ord()" in finding.what


def test_a_rule_of_a_new_kind_needs_no_other_place(monkeypatch: pytest.MonkeyPatch) -> None:
    old = rules.rules
    monkeypatch.setattr(edits, "rules", lambda node: (*old(node), ("a new kind", "0.5 * 3")))
    assert rl.diagnose(NoSlope(3, 4, rng=0)).findings[0].repair is not None


def mistyped(W: Any, b: Any, x: Any) -> Any:
    e = x @ W + b
    return (e**2).sum() / 2, {"W": x.T @ e, "bias": 77 * e.sum(0)}


def test_a_mistyped_key_is_never_passed_in_silence() -> None:
    with pytest.raises(ValueError, match=r"whose gradient is .*grads\['bias'\]"):
        rl.check_gradients(mistyped, np.zeros((3, 4)), np.zeros(4), np.zeros((5, 3)))


def hands_on(W: Any, x: Any) -> Any:
    gates = x @ W
    return (gates**2).sum() / 2, x.T @ gates, gates


def with_its_gates(W: Any, x: Any) -> Any:
    loss, dW, gates = hands_on(W, x)
    return loss, dW, gates


def test_what_is_returned_besides_gradients_is_no_unknown_gradient() -> None:
    assert rl.diagnose(with_its_gates, np.zeros((3, 4)), np.zeros((5, 3))).notes == ()
    rl.check_gradients(with_its_gates, np.zeros((3, 4)), np.zeros((5, 3)))


# ---- a cell with options ------------------------------------------------------------------------


class Power(rl.Cell):
    gate_names = ("candidate",)

    def __init__(self, input_size: int, hidden_size: int, *, power: int = 1, **arguments: Any) -> None:
        super().__init__(input_size, hidden_size, **arguments)
        self.power = power

    def step(self, a: Any, prev: Any) -> Any:
        (h,) = prev
        (g,) = np.tanh(a + h @ self.W_h)
        return (g,), (g**self.power,), ()

    def step_backward(self, d_next: Any, prev: Any, gates: Any, extras: Any) -> Any:
        (d_h,), (g,) = d_next, gates
        d_a = d_h * (1 - g**2)
        return (d_a,), (self.back((d_a,)),), ()


class Cubed(Power):
    def step_backward(self, d_next: Any, prev: Any, gates: Any, extras: Any) -> Any:
        (d_h,), (g,) = d_next, gates
        d_a = d_h * 3 * g**2 * (1 - g**2)
        return (d_a,), (self.back((d_a,)),), ()


class OfItsOwn(Cubed):
    def __init__(self, D: int, H: int) -> None:
        super().__init__(D, H, power=3, rng=0)


def test_a_cell_is_examined_with_the_options_that_it_was_made_with() -> None:
    assert rl.diagnose(Power(3, 4, rng=0)).ok
    assert rl.diagnose(Power(3, 4, power=3, rng=0)).findings[0].text == "d_a = d_h * (1 - g**2)"
    assert rl.diagnose(Cubed(3, 4, power=3, rng=0)).ok
    assert not rl.diagnose(Cubed(3, 4, rng=0)).ok
    assert rl.diagnose(OfItsOwn(3, 4)).ok


def test_arguments_that_are_no_list_are_asked_for_as_one() -> None:
    with pytest.raises(TypeError, match=r"^arguments: expected a list, .*; write \[x\]$"):
        rl.diagnose(step_forward, step_forward, np.zeros(3))


# ---- what is the learner's own ------------------------------------------------------------------

WEIGHTS = np.ones((3, 2))


def with_a_global(x: Any) -> Any:
    h = np.tanh(x @ WEIGHTS)
    return h, (x, WEIGHTS, h)


def wrong_of_a_global(d_h: Any, cache: Any) -> Any:
    _, W, h = cache
    return d_h * (1 - h) @ W.T


def without_return(d_h: Any, cache: Any) -> Any:
    _, W, h = cache
    d_x = d_h * (1 - h**2) @ W.T


def far_too_large(d_h: Any, cache: Any) -> Any:
    _, W, h = cache
    return 1e200 * (d_h * (1 - h**2) @ W.T)


def test_the_learners_arrays_can_be_written_to_afterwards() -> None:
    assert not rl.diagnose(with_a_global, wrong_of_a_global, [np.ones((2, 3))]).ok
    assert WEIGHTS.flags.writeable


def test_a_backward_pass_that_returns_nothing_or_far_too_much_is_wrong() -> None:
    (finding,) = rl.diagnose(with_a_global, without_return, [np.ones((2, 3))]).findings
    assert "return statement missing" in finding.what
    assert not rl.diagnose(with_a_global, far_too_large, [np.ones((2, 3))]).ok


class ReusesABuffer(rl.RNNCell):
    def forward(self, x: Any, state: Any = None, lengths: Any = None) -> Any:
        tape = super().forward(x, state, lengths)
        buffer = vars(self).setdefault("buffers", {}).setdefault((tape.gates.shape, tape.gates.dtype.char), tape.gates)
        buffer[...] = tape.gates
        return replace(tape, gates=buffer)


def test_a_buffer_that_a_cell_writes_in_again_stays_writable() -> None:
    rl.check_gradients(ReusesABuffer(2, 3, rng=0))
    assert rl.diagnose(ReusesABuffer(2, 3, rng=0)).ok


class Doubled(rl.Bidirectional):
    def backward(self, *arguments: Any, **named: Any) -> Any:
        grads = super().backward(*arguments, **named)
        return replace(grads, params={name: 2 * p for name, p in grads.params.items()})


def test_a_layer_of_two_right_cells_may_be_wrong_itself() -> None:
    report = rl.diagnose(Doubled(rl.RNNCell(2, 3, rng=0), rl.RNNCell(2, 3, rng=1)))
    assert "A factor is too many, 2" in report.findings[0].what


class SigmoidAsTanh(rl.LSTMCell):
    def step_backward(self, d_next: Any, prev: Any, gates: Any, extras: Any) -> Any:
        (d_h, d_c), (h, c), (i, f, g, o), (u,) = d_next, prev, gates, extras
        d_c = d_c + d_h * o * (1 - u**2)
        d_f = d_c * c * (1 - f**2)
        d_a = (d_c * g * i * (1 - i), d_f, d_c * i * (1 - g**2), d_h * u * o * (1 - o))
        return d_a, (self.back(d_a), d_c * f), ()


class TanhAsSigmoid(rl.LSTMCell):
    def step_backward(self, d_next: Any, prev: Any, gates: Any, extras: Any) -> Any:
        (d_h, d_c), (h, c), (i, f, g, o), (u,) = d_next, prev, gates, extras
        d_c = d_c + d_h * o * (1 - u**2)
        d_g = d_c * i * g * (1 - g)
        d_a = (d_c * g * i * (1 - i), d_c * c * f * (1 - f), d_g, d_h * u * o * (1 - o))
        return d_a, (self.back(d_a), d_c * f), ()


@pytest.mark.parametrize(
    ("kind", "what", "repair"),
    [
        (SigmoidAsTanh, "f comes out of a sigmoid", "d_f = d_c * c * f * (1 - f)"),
        (TanhAsSigmoid, "g comes out of a tanh", "d_g = d_c * i * (1 - g ** 2)"),
    ],
)
def test_the_derivative_of_the_other_activation_is_told(kind: Any, what: str, repair: str) -> None:
    (finding,) = rl.diagnose(kind(3, 4, rng=0)).findings
    assert what in finding.what
    assert finding.repair == repair
