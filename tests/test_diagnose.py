"""`diagnose`: its report, its exact derivatives, and what it does with code that breaks."""

import html.parser
import threading

import numpy as np
import pytest
from cases import MinimalGatedUnit
from zoo import (
    GRU,
    LSTM,
    RNN,
    FromScratchRNN,
    LSTMByHand,
    PeepholeLSTM,
    RealStepRNN,
    RNNByHand,
    fails_gradient_check,
    mutant,
)

import rnnlab as rl
from rnnlab.cells.base import column_sums, outer_products
from rnnlab.diagnosis.case import CENTRAL, COMPLEX, make_step_case, own_vectors, vector_jacobian
from rnnlab.diagnosis.terms import Term, Vocabulary, match

WRONG = mutant(LSTM, "step_backward", ("d_f = d_c * c * f * (1 - f)", "d_f = d_c * c"))


def test_the_sentence_names_gate_factor_and_meaning() -> None:
    report = rl.diagnose(WRONG(3, 4, rng=0))
    (finding,) = report.findings
    assert finding.sentence == "d_a[forget] lacks the factor f(1 - f): the derivative of the sigmoid."
    assert finding.outputs == ("d_a[forget]",)
    assert finding.paths == ("dL/dh", "dL/dc")
    assert finding.kind == "missing factor"
    assert finding.residual is not None
    assert finding.residual < 1e-12
    assert not report.ok


def test_report_prints_as_a_table() -> None:
    text = str(rl.diagnose(WRONG(3, 4, rng=0)))
    head, columns, row = text.splitlines()
    assert head.endswith("1 finding")
    assert columns.split() == ["where", "path", "residual", "what"]
    assert row.startswith("d_a[forget]")
    assert "f(1 - f)" in row
    assert str(rl.diagnose(rl.LSTMCell(2, 3, rng=0))).endswith("nothing wrong was found")


def test_report_is_a_plain_table_in_a_notebook() -> None:
    page = rl.diagnose(WRONG(3, 4, rng=0))._repr_html_()
    tags: list[str] = []
    reader = html.parser.HTMLParser()
    reader.handle_starttag = lambda tag, attributes: tags.append(tag)
    reader.feed(page)
    assert set(tags) <= {"p", "table", "tr", "th", "td"}
    assert tags.count("tr") == 2
    assert "f(1 - f)" in page


def test_html_is_escaped() -> None:
    finding = rl.Finding(("<b>",), (), "kind", "a < b & <script>")
    page = rl.Diagnosis("<cell>", (finding,), ("<note>",))._repr_html_()
    assert "<script>" not in page
    assert "<b>" not in page
    assert "&lt;cell&gt;" in page
    assert "&lt;note&gt;" in page


def test_the_same_seed_gives_the_same_report() -> None:
    cell = mutant(GRU, "step_backward", ("d_q @ W_n.T", "d_q @ W_n"))(3, 4, rng=0)
    assert rl.diagnose(cell, rng=5) == rl.diagnose(cell, rng=5)


@pytest.mark.parametrize("base", [LSTM, PeepholeLSTM, LSTMByHand])
def test_the_cell_stays_as_it_is(base: type[rl.Cell]) -> None:
    cell = base(3, 4, rng=0)
    before = {name: p.copy() for name, p in cell.params.items()}
    attributes = set(vars(cell))
    rl.diagnose(cell)
    assert set(vars(cell)) == attributes
    for name, p in cell.params.items():
        assert np.array_equal(p, before[name])


def test_accumulators_of_the_cell_are_not_touched() -> None:
    base = mutant(
        LSTMByHand,
        "backward",
        ("d_W_h = np.zeros_like(self.W_h)", "d_W_h = self.kept"),
    )
    cell = base(3, 4, rng=0)
    cell.kept = np.zeros_like(cell.W_h)
    report = rl.diagnose(cell)
    assert "adds to the one before" in report.findings[0].sentence
    assert not cell.kept.any()


# ---- exact derivatives ------------------------------------------------------------------------


@pytest.mark.parametrize("base", [rl.LSTMCell, rl.GRUCell, rl.FourGateLSTMCell])
def test_exact_derivatives_agree_with_the_right_step_backward(base: type[rl.Cell]) -> None:
    case = make_step_case(base(3, 4, rng=0), 6, np.random.default_rng(1))
    assert case.method == COMPLEX
    d_a, d_prev, _ = case.cell.step_backward(case.d_next, case.prev, case.gates, case.extras)
    np.testing.assert_allclose(case.d_a.sum(axis=0), np.array(d_a), rtol=1e-11, atol=1e-13)
    np.testing.assert_allclose(case.d_prev.sum(axis=0), np.array(d_prev), rtol=1e-11, atol=1e-13)


def test_vector_jacobian_contracts_the_next_state() -> None:
    jacobian = np.random.default_rng(0).normal(size=(3, 2, 1, 4, 2))
    d_next = np.random.default_rng(1).normal(size=(1, 4, 2))
    d_a, d_prev = vector_jacobian(jacobian, d_next, 2)
    assert d_a.shape == (2, 4, 2)
    assert d_prev.shape == (1, 4, 2)
    by_hand = sum(jacobian[1, 0, 0, 3, h] * d_next[0, 3, h] for h in range(2))
    assert d_a[1, 3, 0] == pytest.approx(by_hand)


def test_a_step_without_complex_numbers_gets_central_differences_and_the_report_says_so() -> None:
    report = rl.diagnose(RealStepRNN(3, 4, rng=0))
    assert report.ok
    assert CENTRAL in report.notes[0]
    wrong = mutant(RealStepRNN, "step_backward", (" * (1 - h * h)", ""))
    report = rl.diagnose(wrong(3, 4, rng=0))
    assert "d_a[candidate] lacks the factor 1 - h_t^2" in report.findings[0].sentence
    assert CENTRAL in str(report)


def test_a_step_that_loses_the_imaginary_part_gets_central_differences() -> None:
    class Norm(rl.RNNCell):
        def step(self, a, prev):
            h = np.tanh(a[0] + prev[0] @ self.W_h[0])
            return (h,), (np.sign(h.real) * np.abs(h),), ()

        def step_backward(self, d_next, prev, gates, extras):
            d_a = d_next[0] * (1 - gates[0] ** 2)
            return (d_a,), (d_a @ self.W_h[0].T,), ()

    report = rl.diagnose(Norm(3, 4, rng=0))
    assert report.ok
    assert CENTRAL in report.notes[0]


def test_a_step_of_another_batch_size_only_is_diagnosed() -> None:
    class Fixed(LSTM):
        def step(self, a, prev):
            if a.shape[1] > 15:
                raise ValueError("only a few rows")
            return LSTM.step(self, a, prev)

    assert rl.diagnose(Fixed(3, 4, rng=0)).ok


def test_forward_and_backward_without_a_step() -> None:
    assert rl.diagnose(FromScratchRNN(3, 4, rng=0)).ok
    wrong = mutant(FromScratchRNN, "backward", ("* (1 - tape.h[t] ** 2)", ""))
    (finding,) = rl.diagnose(wrong(3, 4, rng=0)).findings
    assert finding.kind == "unexplained"
    assert "right at t = 5, wrong from t = 4 on down, and no hypothesis fits" in finding.sentence
    assert "should be" in finding.numbers


def test_a_step_backward_that_nobody_calls_is_not_blamed() -> None:
    base = mutant(LSTMByHand, "backward", ("T, B", "T, B"))
    wrong = type("Own", (base,), {"step_backward": WRONG.step_backward})
    assert rl.diagnose(wrong(3, 4, rng=0)).ok


def test_a_path_without_any_effect_is_not_lost() -> None:
    class Mute(rl.LSTMCell):
        """Its h is always 0."""

        def step(self, a, prev):
            gates, (h, c), extras = super().step(a, prev)
            return gates, (0 * h, c), extras

        def step_backward(self, d_next, prev, gates, extras):
            return super().step_backward((0 * d_next[0], d_next[1]), prev, gates, extras)

    rl.check_gradients(Mute(3, 4, rng=0))
    assert not rl.diagnose(Mute(3, 4, rng=0)).findings


def test_an_own_loop_around_a_wrong_step_is_not_blamed_besides() -> None:
    wrong = mutant(RNNByHand, "step_backward", (" * (1 - h * h)", ""))
    (finding,) = rl.diagnose(wrong(3, 4, rng=0)).findings
    assert finding.outputs == ("d_a[candidate]",)


def test_an_own_loop_that_is_wrong_besides_its_step_is_told_so() -> None:
    wrong = mutant(RNNByHand, "step_backward", (" * (1 - h * h)", ""))
    wrong = mutant(type("Both", (wrong,), {}), "backward", ("tape.x, d_a)", "tape.x[::-1], d_a)"))
    step, loop = rl.diagnose(wrong(3, 4, rng=0)).findings
    assert step.outputs == ("d_a[candidate]",)
    assert loop.outputs == ("params[W_x]",)
    assert "is wrong beyond what follows from step_backward" in loop.sentence


# ---- code that breaks -------------------------------------------------------------------------


def raising(*_: object) -> None:
    raise RuntimeError("out of luck")


@pytest.mark.parametrize("method", ["step", "step_backward", "recurrent_grads", "forward", "backward"])
def test_an_exception_is_a_finding(method: str) -> None:
    wrong = type("Wrong", (rl.LSTMCell,), {method: raising})
    (finding,) = rl.diagnose(wrong(3, 4, rng=0)).findings
    assert "RuntimeError: out of luck" in finding.sentence
    assert finding.kind == "exception"


@pytest.mark.parametrize(
    ("method", "value", "words"),
    [
        ("step_backward", None, "returns NoneType"),
        ("step_backward", (None, None, ()), "d_a is NoneType None"),
        ("step_backward", ([np.zeros(3)] * 4, [np.zeros(3)] * 2, ()), "d_a[input] has shape (3,)"),
        ("step_backward", (["a"] * 4, [0.0] * 2, ()), "d_a[input] is str 'a'"),
        ("recurrent_grads", None, "recurrent_grads gives NoneType None"),
        ("recurrent_grads", {}, "no gradient for this parameter"),
        ("recurrent_grads", {"W_h": np.zeros(3)}, "params[W_h] is an array of shape (3,)"),
        ("backward", None, "backward gives NoneType None"),
        ("step", None, "step returns NoneType None"),
    ],
)
def test_what_does_not_fit_is_told_in_words(method: str, value: object, words: str) -> None:
    wrong = type("Wrong", (rl.LSTMCell,), {method: lambda self, *_, **__: value})
    report = rl.diagnose(wrong(3, 4, rng=0))
    assert any(words in finding.sentence for finding in report.findings), str(report)


def test_an_exception_at_a_later_call_is_told_as_such() -> None:
    later = (
        "if self.__dict__.setdefault('calls', []): raise RuntimeError('spent')\n    self.calls.append(1); d_o = d_h * u"
    )
    (finding,) = rl.diagnose(mutant(LSTM, "step_backward", ("d_o = d_h * u", later))(3, 4, rng=0)).findings
    assert "a later call of step_backward raises RuntimeError: spent" in finding.sentence


def test_an_exception_without_a_message_is_told_by_its_kind() -> None:
    cell = mutant(LSTM, "step_backward", ("d_o = d_h * u", "raise KeyError\n    d_o = d_h * u"))
    (finding,) = rl.diagnose(cell(3, 4, rng=0)).findings
    assert finding.sentence == "step_backward raises KeyError."


def test_a_missing_step_backward_is_told() -> None:
    cell = type("Unfinished", (rl.Cell,), {"gate_names": ("candidate",), "step": rl.RNNCell.step, "activation": "tanh"})
    (finding,) = rl.diagnose(cell(3, 4, rng=0)).findings
    assert "has no step_backward" in finding.sentence


def test_arguments_are_checked() -> None:
    cell = rl.LSTMCell(2, 3, rng=0)
    with pytest.raises(TypeError, match="cell: expected a Cell"):
        rl.diagnose("cell")
    with pytest.raises(TypeError, match="reference: expected a Cell"):
        rl.diagnose(cell, "cell")
    with pytest.raises(ValueError, match="T: expected"):
        rl.diagnose(cell, T=0)
    with pytest.raises(TypeError, match="rng: expected"):
        rl.diagnose(cell, rng="seed")


def test_not_zero_for_a_zero_gradient() -> None:
    wrong = mutant(LSTM, "step_backward", ("d_c_prev = d_c * f", "d_c_prev = d_c * f + c"))
    (finding,) = rl.diagnose(wrong(3, 4, rng=0)).findings
    assert finding.outputs == ("d_prev[c]",)
    assert "not zero for d_next = 0" in finding.sentence


def test_a_nonlinear_step_backward() -> None:
    wrong = mutant(LSTM, "step_backward", ("d_c_prev = d_c * f", "d_c_prev = d_c * f + d_next[0] * d_next[1]"))
    (finding,) = rl.diagnose(wrong(3, 4, rng=0)).findings
    assert finding.kind == "not linear"


def test_state_left_over_in_step_backward() -> None:
    wrong = mutant(
        LSTM,
        "step_backward",
        ("d_o = d_h * u", "c = self.c = self.__dict__.get('c', 0) + c; d_o = d_h * u"),
    )
    report = rl.diagnose(wrong(3, 4, rng=0))
    assert any(f.kind == "state left over" for f in report.findings)


# ---- unusual cells that are right -------------------------------------------------------------


def test_a_cell_that_cannot_be_copied_deeply_is_diagnosed() -> None:
    cell = rl.LSTMCell(3, 4, rng=0)
    cell.lock = threading.Lock()
    assert rl.diagnose(cell).ok


class PositiveGainRNN(RNN):
    """h = sqrt(gain) tanh(.): a gain below 0 has no square root, so the cell's own stays in place of a random one."""

    def __init__(self, *arguments, **named):
        super().__init__(*arguments, **named)
        self.add_param("gain", lambda shape, rng: rng.uniform(1, 2, shape), (1, self.hidden_size))

    def step(self, a, prev):
        g = np.tanh(a[0] + prev[0] @ self.W_h[0])
        return (g,), (np.sqrt(self.gain) * g,), ()

    def step_backward(self, d_next, prev, gates, extras):
        d_a = d_next[0] * np.sqrt(self.gain) * (1 - gates[0] ** 2)
        return (d_a,), (d_a @ self.W_h[0].T,), (d_next[0] * gates[0],)

    def recurrent_grads(self, tape, d_a, d_extras):
        return super().recurrent_grads(tape, d_a, d_extras) | {"gain": column_sums(d_extras) / (2 * np.sqrt(self.gain))}


def test_parameters_that_must_be_positive_stay_as_they_are() -> None:
    assert rl.diagnose(PositiveGainRNN(3, 4, rng=0)).ok
    wrong = mutant(PositiveGainRNN, "step_backward", (" * (1 - gates[0] ** 2)", ""))
    (finding,) = rl.diagnose(wrong(3, 4, rng=0)).findings
    assert finding.sentence.startswith("d_a[candidate] lacks the factor")


def test_rows_of_a_parameter_are_named_by_gate_or_by_number() -> None:
    cell = rl.GRUCell(2, 4, rng=0)
    cell.add_param("p", "uniform", (3, 1, 4))
    cell.add_param("q", "uniform", (2, 4))
    assert list(own_vectors(cell)) == ["b_hn", "p[reset]", "p[update]", "p[candidate]", "q[0]", "q[1]"]
    np.testing.assert_array_equal(own_vectors(cell)["q[1]"], cell.params["q"][1:])


class VectorPeepholeLSTM(PeepholeLSTM):
    """Parameters of shape (H,), not (1, H)."""

    def __init__(self, *arguments, **named):
        rl.Cell.__init__(self, *arguments, **named)
        for name in ("p_i", "p_f", "p_o"):
            self.add_param(name, "uniform", (self.hidden_size,))

    def recurrent_grads(self, tape, d_a, d_extras):
        grads = super().recurrent_grads(tape, d_a, d_extras)
        return {name: g[0] if name.startswith("p") else g for name, g in grads.items()}


class CenteredRNN(RNN):
    """The mean over the batch is taken away, as in batch normalization: the rows of a step are not independent."""

    def step(self, a, prev):
        before = a[0] + prev[0] @ self.W_h[0]
        h = np.tanh(before - before.mean(axis=0))
        return (h,), (h,), ()

    def step_backward(self, d_next, prev, gates, extras):
        d_a = d_next[0] * (1 - gates[0] ** 2)
        d_a = d_a - d_a.mean(axis=0)
        return (d_a,), (d_a @ self.W_h[0].T,), ()


class KeptParameterRNN(RNN):
    """A parameter that is an attribute besides: the time loops put the current one in its place."""

    def __init__(self, *arguments, **named):
        super().__init__(*arguments, **named)
        self.add_param("U", "uniform", (self.hidden_size, self.hidden_size))
        self.U = self.params["U"]

    def step(self, a, prev):
        h = np.tanh(a[0] + prev[0] @ self.W_h[0] @ self.U)
        return (h,), (h,), ()

    def step_backward(self, d_next, prev, gates, extras):
        d_a = d_next[0] * (1 - gates[0] ** 2)
        return (d_a,), (d_a @ self.U.T @ self.W_h[0].T,), ()

    def recurrent_grads(self, tape, d_a, d_extras):
        h = tape.states[:-1, 0]
        return {"W_h": outer_products(h, d_a @ self.U.T), "U": outer_products(h @ self.W_h[0], d_a)[0]}


@pytest.mark.parametrize("base", [VectorPeepholeLSTM, CenteredRNN, KeptParameterRNN, MinimalGatedUnit])
@pytest.mark.parametrize(("D", "H", "T", "B"), [(3, 4, 5, 3), (4, 4, 2, 3), (1, 1, 1, 2)])
def test_unusual_cells_are_not_blamed(base: type[rl.Cell], D: int, H: int, T: int, B: int) -> None:
    report = rl.diagnose(base(D, H, rng=0), T=T, B=B)
    assert report.ok, str(report)
    rl.check_gradients(base(D, H, rng=0), T=T, B=B)


def test_a_step_that_mixes_the_batch_is_diagnosed_by_whole_passes() -> None:
    wrong = mutant(CenteredRNN, "step_backward", ("d_a = d_a - d_a.mean(axis=0)", "pass"))
    report = rl.diagnose(wrong(3, 4, rng=0))
    assert report.findings
    assert "mixes the sequences of a batch" in report.notes[0]


# ---- further mistakes, each told in words that are true of it ---------------------------------


class RandomStepRNN(RNN):
    def step(self, a, prev):
        h = np.tanh(a[0] + prev[0] @ self.W_h[0]) * np.random.default_rng().uniform(size=a[0].shape)
        return (h,), (h,), ()


class CachingRNN(RNN):
    """What step keeps on self is the last step's alone: the backward pass reads it at every step."""

    def step(self, a, prev):
        self.cache = np.tanh(a[0] + prev[0] @ self.W_h[0])
        return (self.cache,), (self.cache,), ()

    def step_backward(self, d_next, prev, gates, extras):
        d_a = d_next[0] * (1 - self.cache**2)
        return (d_a,), (d_a @ self.W_h[0].T,), ()


class NoGradients(LSTMByHand):
    def backward(self, tape, d_h, d_state=None, *, input_gradient=True):
        grads = super().backward(tape, d_h, d_state)
        return grads.params, grads.x, grads.states


BY_HAND, STEP, GRADS = (LSTMByHand, "backward"), (LSTM, "step_backward"), (LSTM, "recurrent_grads")


@pytest.mark.parametrize(
    ("cell", "outputs", "words"),
    [
        (RandomStepRNN, {"step"}, "another answer at each call"),
        (CachingRNN, {"step_backward"}, "step_backward raises ValueError: operands could not be broadcast"),
        (NoGradients, {"backward"}, "backward gives tuple"),
        (mutant(LSTM, "step", ("sigmoid(f)", "sigmoid(f).astype(np.float32)")), {"step"}, "forget in single precision"),
        (mutant(*STEP, ("d_c_prev), ()", "d_c_prev), None")), {"d_extras"}, "d_extras is NoneType None"),
        (mutant(*STEP, ("d_c_prev = d_c * f", "d_c_prev = d_c * f / len(f)")), {"d_prev[c]"}, "1/B times"),
        (mutant(*GRADS, ("return {", "d_a *= 2; return {")), {"d_a", "params[W_h]"}, "recurrent_grads changes its"),
        (mutant(*GRADS, ("return {", "tape.states[0] += 1; return {")), {"tape.states", "params[W_h]"}, "tape.states"),
        (mutant(*BY_HAND, (', "b": d_b}', "}")), {"params[b]"}, "gives no gradient for this parameter"),
        (mutant(*BY_HAND, ("d_x, d_states)", "d_x, d_states[1:])")), {"states"}, "shape (6, 2, 3, 4) should be"),
        (mutant(*BY_HAND, ("reversed(range(T))", "reversed(range(1, T))")), None, "never comes to the first time step"),
        (mutant(*BY_HAND, ("reversed(range(T))", "reversed(range(T - 1))")), None, "never takes the last time step"),
        (mutant(*BY_HAND, ("reversed(range(T))", "range(T)")), None, "goes forward in time"),
        (mutant(*BY_HAND, ("d_h_t = d_h[t] +", "d_h_t = d_h[t - 1] +")), None, "d_h[t-1] for d_h[t]"),
        (mutant(*BY_HAND, ("tape.gates[:, t]", "tape.gates[:, t - 1]")), None, "gates of the step before"),
        (mutant(*BY_HAND, ("tape.x[t].T", "tape.x[t - 1].T")), {"params[W_x]"}, "x_{t-1}^T d_a[k], where x_t^T"),
        (mutant(*BY_HAND, ("d_x[t] +=", "d_x[t] =")), {"x"}, "x lacks d_a[input] W_x[input]^T, d_a[forget]"),
        (mutant(*BY_HAND, ("self.W_x[k].T", "self.W_x[k]")), {"x"}, "x is formed with W_x, where W_x^T should be"),
        (mutant(*BY_HAND, ("d_states[t + 1] =", "d_states[t] =")), {"states"}, "holds what states[t + 1] should be"),
        (mutant(*BY_HAND, ("[t + 1, 1])", "[t, 1])")), {"d_a", "d_prev"}, "tanh(c_{t-1}) in the place of tanh(c_t)"),
        (mutant(*BY_HAND, ("np.tanh(tape", "np.log(tape")), {"states"}, "are not finite"),
        (
            mutant(*BY_HAND, ("d_states[0] = ", "self.W_h[:] -= d_W_h; d_states[0] = ")),
            {"params[W_h]"},
            "backward changes its argument params[W_h] in place",
        ),
    ],
)  # fmt: skip
def test_further_mistakes(cell: type[rl.Cell], outputs: set[str] | None, words: str) -> None:
    report = rl.diagnose(cell(4, 4, rng=0))
    assert any(words in f.sentence for f in report.findings), str(report)
    named = {output for f in report.findings for output in f.outputs}
    assert outputs is None or all(any(o.startswith(place) for place in outputs) for o in named), str(report)
    assert fails_gradient_check(cell(4, 4, rng=0))


def test_a_block_of_one_number_is_not_explained_by_a_ratio() -> None:
    wrong = mutant(LSTM, "recurrent_grads", ("tape.states[:-1, 0]", "tape.states[1:, 0]"))
    (finding,) = rl.diagnose(wrong(3, 1, rng=0)).findings
    assert "formed with h_t^T d_a[k], where h_{t-1}^T d_a[k] should be" in finding.sentence


def test_a_sum_is_told_whole_however_large() -> None:
    wrong = mutant(LSTM, "recurrent_grads", ("tape.states[:-1, 0]", "tape.states[1:, 0]"))
    (finding,) = rl.diagnose(wrong(3, 24, rng=0)).findings
    assert "formed with h_t^T d_a[k], where h_{t-1}^T d_a[k] should be" in finding.sentence
    old, new = "outer_products(tape.states[:-1, 0], d_a)", "outer_products(tape.states[:-1, 0], d_a)"
    wrong = mutant(LSTM, "recurrent_grads", (old, f"{new} * (np.arange(24) < 20)"))
    assert not any(f.explained for f in rl.diagnose(wrong(3, 24, rng=0)).findings)


def test_the_numbers_shown_are_those_that_differ() -> None:
    wrong = mutant(LSTM, "step_backward", ("d_c_prev = d_c * f", "d_c_prev = np.clip(d_c * f, -0.5, 0.5)"))
    (finding,) = rl.diagnose(wrong(3, 4, rng=0)).findings
    assert finding.kind == "unexplained"
    assert all("0.5, should be" in pair for pair in finding.numbers.split("; "))


# ---- two forward passes -----------------------------------------------------------------------


@pytest.mark.parametrize(("one", "other"), [(LSTM, rl.LSTMCell), (GRU, rl.GRUCell)])
def test_equal_forward_passes(one: type[rl.Cell], other: type[rl.Cell]) -> None:
    assert rl.diagnose(one(3, 4, rng=0), other(3, 4, rng=1)).ok


@pytest.mark.parametrize(
    ("base", "old", "new", "output", "words"),
    [
        (LSTM, "(o * u, c_t)", "(o * c_t, c_t)", "next_state[h]", "c_t in the place of tanh(c_t)"),
        (LSTM, "i, f, g, o = a + h", "f, i, g, o = a + h", "gates[input]", "holds what the gate forget should be"),
        (LSTM, "np.tanh(g)", "sigmoid(g)", "gates[candidate]", "goes through sigmoid, where the reference has tanh"),
        (LSTM, "h @ self.W_h", "h @ self.W_h.mT", "gates[forget]", "reads a[forget] + h_{t-1} W_h[forget]^T"),
        (LSTM, "i * g + c * f", "i * g + c", "next_state[c]", "i g + c_{t-1}, where the reference has i g + c_{t-1} f"),
        (GRU, "n + z * (h - n)", "h + z * (n - h)", "next_state[h]", "h_{t-1} (1 - z), where"),
        (GRU, "a[1] + h @ W_z", "a[1]", "gates[update]", "reads a[update], where the reference reads a[update] + "),
        (GRU, "r * q)", "q)", "gates[candidate]", "the reference reads a[candidate] + r candidate_h"),
    ],
)  # fmt: skip
def test_where_two_forward_passes_part(base: type[rl.Cell], old: str, new: str, output: str, words: str) -> None:
    report = rl.diagnose(mutant(base, "step", (old, new))(3, 4, rng=0), base(3, 4, rng=1))
    told = {f.outputs[0]: f.sentence for f in report.findings}
    assert words in told[output]
    if output.startswith("next_state"):
        assert list(told) == [output]


def test_a_forward_pass_that_no_hypothesis_fits_or_that_raises() -> None:
    (finding,) = rl.diagnose(mutant(LSTM, "step", ("c * f", "np.sin(7 * c)"))(3, 4, rng=0), LSTM(3, 4, rng=1)).findings
    assert finding.outputs == ("next_state[c]",)
    assert finding.sentence == "next_state[c] parts from the reference, and no hypothesis fits."
    assert "should be" in finding.numbers
    wrong = type("Wrong", (LSTM,), {"step": raising})
    (finding,) = rl.diagnose(wrong(3, 4, rng=0), LSTM(3, 4, rng=1)).findings
    assert finding.kind == "exception"


def test_reset_before_and_after_the_product() -> None:
    report = rl.diagnose(rl.GRUCell(3, 4, rng=0), rl.GRUResetBeforeCell(3, 4, rng=0))
    (finding,) = report.findings
    assert finding.outputs == ("gates[candidate]",)
    assert "W_x, W_h and b are parameters of both" in report.notes[0]


def test_a_forward_pass_that_parts_between_the_steps() -> None:
    class Forgets(LSTM):
        def forward(self, x, state=None):
            tape = super().forward(x, state)
            tape.states[3:] *= 2
            return tape

    (finding,) = rl.diagnose(Forgets(3, 4, rng=0), LSTM(3, 4, rng=0)).findings
    assert "the same up to t = 2, and part at t = 3" in finding.sentence


def test_cells_of_another_kind_cannot_be_compared() -> None:
    (finding,) = rl.diagnose(rl.RNNCell(3, 4, rng=0), rl.LSTMCell(3, 4, rng=0)).findings
    assert "gate_names" in finding.sentence


# ---- the vocabulary ---------------------------------------------------------------------------


def test_match_finds_equal_and_opposite_rows_and_nothing_else() -> None:
    rows = np.random.default_rng(0).normal(size=(50, 12))
    left = np.stack((rows[7], -rows[9], rows[3] + 1e-5))
    assert sorted(match(left, rows, 1e-9)) == [(0, 7, 1), (1, 9, -1)]


def test_terms_evaluate_as_they_read() -> None:
    rng = np.random.default_rng(0)
    v, w, M, base = *rng.normal(size=(2, 5, 3)), rng.normal(size=(3, 3)), rng.normal(size=(5, 3))
    vocabulary = Vocabulary({"v": v, "w": w}, {}, {"M": M}, 1e-9)
    term = Term("d", ("v",), "M", ("1 - w",))
    assert str(term) == "(d v) M (1 - w)"
    np.testing.assert_allclose(vocabulary.value(term, {"d": base}), ((base * v) @ M) * (1 - w))
    assert (term, 1) in vocabulary.readings(((base * v) @ M) * (1 - w), {"d": base})
    assert vocabulary.readings(rng.normal(size=(5, 3)), {"d": base}) == []
