"""What the laboratory's figures draw."""

import re
from collections.abc import Callable, Iterator
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pytest
from cases import random_case, random_cell, refuses
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm

import rnnlab as rl
from rnnlab import lab, plots

T = 9


@pytest.fixture(autouse=True)
def _close_figures() -> Iterator[None]:
    yield
    plt.close("all")


def recorded(cell_class: type[rl.Cell]) -> tuple[rl.Cell, rl.Tape, Any]:
    """(cell, tape, d_h) with a loss read at the end."""
    cell = random_cell(cell_class)
    x, state, d_h, _ = random_case(cell, T, B=2)
    d_h[:-1] = 0
    return cell, cell.forward(x, state), d_h


def logger_of(*lengths: int) -> rl.GradientNormLogger:
    cell, logger = random_cell(rl.LSTMCell), rl.GradientNormLogger()
    for n, length in enumerate(lengths):
        x, state, d_h, _ = random_case(cell, length, B=2, seed=n)
        tape = cell.forward(x, state)
        logger.record(10 * (n + 1), [cell], [tape], [cell.backward(tape, d_h)])
    return logger


def model() -> tuple[rl.SequenceModel, rl.Batch]:
    cell, rng = random_cell(rl.GRUCell), np.random.default_rng(0)
    batch = rl.Batch(rng.normal(size=(T, 2, 3)), rng.normal(size=(T, 2, 1)))
    return rl.SequenceModel(cell, rl.Dense(4, 1, rng=0), rl.mean_squared_error), batch


def every_figure() -> dict[str, Callable[[Axes | None], Axes]]:
    cell, tape, d_h = recorded(rl.LSTMCell)
    logger, paths = logger_of(6, 6), lab.memory_paths(cell, tape, d_h)
    terms, statistics = lab.distance_terms(cell, tape, d_h), lab.gate_statistics(cell, tape)
    return {
        "gradient_norm_map": lambda ax: plots.gradient_norm_map(logger, ax=ax),
        "gradient_ratios": lambda ax: plots.gradient_ratios({"LSTM": logger}, ax=ax),
        "parameter_norms": lambda ax: plots.parameter_norms(logger, ["W_h[forget]"], ax=ax),
        "memory_paths": lambda ax: plots.memory_paths(paths, ax=ax),
        "stacked memory_paths": lambda ax: plots.memory_paths(paths, stacked=True, ax=ax),
        "distance_terms": lambda ax: plots.distance_terms({"LSTM": terms}, ax=ax),
        "truncation": lambda ax: plots.truncation({"GRU": lab.truncation(*model())}, ax=ax),
        "singular_values": lambda ax: plots.singular_values(lab.jacobian_decay(cell, tape), ax=ax),
        "connectivity": lambda ax: plots.connectivity({"LSTM": lab.connectivity(cell, tape.x)}, ax=ax),
        "saturation": lambda ax: plots.saturation(statistics, ax=ax),
        "half_lives": lambda ax: plots.half_lives({"LSTM": statistics}, ax=ax),
    }


@pytest.mark.parametrize("name", every_figure())
def test_a_figure_draws_into_the_axes_it_is_given_or_into_new_ones(name: str) -> None:
    draw = every_figure()[name]
    _, given = plt.subplots()
    assert draw(given) is given
    new = draw(None)
    assert new is not given
    for ax in (given, new):
        ax.figure.canvas.draw()
        assert ax.get_xlabel()
        assert ax.get_ylabel()


def test_map_joins_sequences_of_different_length_at_their_ends() -> None:
    logger = logger_of(4, 6)
    ax = plots.gradient_norm_map(logger, state="c")
    (mesh,) = ax.collections
    values = np.ma.filled(mesh.get_array(), np.nan)
    short, long = logger.norms("c")
    np.testing.assert_array_equal(values[1], long)
    np.testing.assert_array_equal(values[0, 2:], short)
    assert np.isnan(values[0, :2]).all()
    assert isinstance(mesh.norm, LogNorm)
    assert ax.get_xlabel() == "time steps from the end"
    assert plots.gradient_norm_map(logger_of(4, 4)).get_xlabel() == "time step t"


def test_ratios_and_rates_are_the_loggers() -> None:
    logger = logger_of(4, 6)
    x, y = plots.gradient_ratios({"LSTM": logger}).lines[0].get_data()
    assert list(x) == [10, 20]
    np.testing.assert_array_equal(y, logger.ratios())
    np.testing.assert_array_equal(
        plots.gradient_ratios({"LSTM": logger}, state="c", per_step=True).lines[0].get_ydata(), logger.rates("c")
    )


def test_a_gate_keeps_its_colour_and_a_parameter_its_dash() -> None:
    logger = logger_of(4, 6)
    blocks = ["W_h[forget]", "W_h[input]", "W_x[forget]"]
    lines = plots.parameter_norms(logger, blocks).lines
    np.testing.assert_array_equal(lines[2].get_ydata(), logger.param_norms("W_x[forget]"))
    assert lines[0].get_color() == lines[2].get_color() != lines[1].get_color()
    assert lines[0].get_linestyle() == lines[1].get_linestyle() != lines[2].get_linestyle()


def test_paths_are_drawn_by_their_norms_and_named() -> None:
    paths = lab.memory_paths(*recorded(rl.GRUCell))
    ax = plots.memory_paths(paths)
    drawn = {line.get_label(): np.asarray(line.get_ydata()) for line in ax.lines}
    np.testing.assert_array_equal(drawn["along the memory"][:-1], paths.norms()["memory"][:-1])
    np.testing.assert_array_equal(drawn["all together"], paths.norms()["total"])
    assert "from the output" in [text.get_text() for text in ax.texts]  # read once: a point, named beside it
    assert "from the output" not in drawn
    assert ax.get_yscale() == "log"


def test_stacked_shares_end_at_one() -> None:
    paths = lab.memory_paths(*recorded(rl.LSTMCell))
    shares = paths.shares()
    np.testing.assert_allclose(sum(shares.values()), 1, rtol=1e-12)
    bars: dict[float, float] = {}
    for bar in plots.memory_paths(paths, stacked=True).patches:
        t = bar.get_x() + bar.get_width() / 2
        bars[t] = bars.get(t, 0) + bar.get_height()
    np.testing.assert_allclose(list(bars.values()), 1, rtol=1e-12)
    assert len(bars) == T + 1


def test_distances_and_truncation_draw_their_numbers() -> None:
    terms = lab.distance_terms(*recorded(rl.RNNCell))
    drawn = plots.distance_terms({"RNN": terms}, "W_x[candidate]").lines[0].get_ydata()
    np.testing.assert_array_equal(drawn, terms.norms["W_x[candidate]"])
    result = lab.truncation(*model())
    for quantity, values in (("relative error", result.relative_error["all"]), ("angle", result.angle())):
        x, y = plots.truncation({"GRU": result}, quantity=quantity).lines[0].get_data()
        np.testing.assert_array_equal(x, result.lengths)
        np.testing.assert_array_equal(y, values)


def test_singular_values_stand_in_powers_of_ten_beside_bound_and_gates() -> None:
    cell, tape, _ = recorded(rl.RNNCell)
    decay = lab.jacobian_decay(cell, tape)
    ax = plots.singular_values(decay, sequence=1)
    drawn = {line.get_label(): line for line in ax.lines}
    np.testing.assert_allclose(drawn["largest = norm"].get_ydata(), decay.log_norm[:, 1] / np.log(10))
    assert {"largest = norm", "bound max|φ'| |W|"} <= set(drawn)
    assert len(ax.lines) == 4 + 2
    cell, tape, _ = recorded(rl.GRUCell)
    ax = plots.singular_values(lab.jacobian_decay(cell, tape))
    assert {"gates alone, best unit", "gates alone, median unit"} <= {line.get_label() for line in ax.lines}


def test_connectivity_names_its_events_and_means_over_the_batch() -> None:
    logs = np.log([[1.0, 100.0], [10.0, 10.0]])
    ax = plots.connectivity({"RNN": logs, "LSTM": logs[:, 1]}, events={1: "the reveal"})
    np.testing.assert_allclose(ax.lines[0].get_ydata(), [1, 1])
    np.testing.assert_allclose(ax.lines[1].get_ydata(), [2, 1])
    (top,) = ax.child_axes
    assert [(tick, name.get_text()) for tick, name in zip(top.get_xticks(), top.get_xticklabels(), strict=True)] == [
        (1, "the reveal")
    ]


def test_saturation_draws_a_point_for_each_unit_and_gate() -> None:
    cell, tape, _ = recorded(rl.LSTMCell)
    statistics = lab.gate_statistics(cell, tape)
    ax = plots.saturation(statistics)
    for n, points in enumerate(ax.collections):
        np.testing.assert_array_equal(points.get_offsets(), np.stack((statistics.left[n], statistics.right[n]), 1))
    assert [text.get_text() for text in ax.texts] == ["input gate", "forget gate", "output gate"]


def test_half_lives_are_drawn_longest_first() -> None:
    cell, tape, _ = recorded(rl.LSTMCell)
    statistics = lab.gate_statistics(cell, tape)
    lines = plots.half_lives({"LSTM: before": statistics, "LSTM: after": statistics}).lines
    assert lines[0].get_linestyle() != lines[1].get_linestyle()
    x, y = lines[0].get_data()
    np.testing.assert_array_equal(y, np.sort(statistics.half_life)[::-1])
    np.testing.assert_array_equal(x, [0.25, 0.5, 0.75, 1])


def test_nothing_to_draw_is_an_error() -> None:
    with refuses(ValueError, "logger"):
        plots.gradient_norm_map(rl.GradientNormLogger())
    with refuses(ValueError, "blocks"):
        plots.parameter_norms(logger_of(3), [])
    cell, tape, d_h = recorded(rl.LSTMCell)
    with refuses(ValueError, "paths"):
        plots.memory_paths(lab.memory_paths(cell, tape, 0 * d_h))
    with refuses(ValueError, "log_norms['RNN']"):
        plots.connectivity({"RNN": np.full(3, -np.inf)})
    with refuses(ValueError, "quantity"):
        plots.truncation({"GRU": lab.truncation(*model())}, quantity="length")
    for empty, name in (
        (plots.gradient_ratios, "loggers"),
        (plots.distance_terms, "terms"),
        (plots.truncation, "results"),
        (plots.connectivity, "log_norms"),
        (plots.half_lives, "statistics"),
    ):
        with refuses(ValueError, name):
            empty({})


def test_what_is_not_the_laboratorys_is_refused() -> None:
    """Before anything is drawn: no figure is left behind."""
    number: Any = 3
    one_curve = {"a": [1.0, 2.0]}
    calls: list[tuple[str, Callable[[], object]]] = [
        ("logger", lambda: plots.gradient_norm_map(number)),
        ("logger", lambda: plots.parameter_norms(number, ["b"])),
        ("blocks", lambda: plots.parameter_norms(rl.GradientNormLogger(), "W_h[forget]")),
        ("loggers", lambda: plots.gradient_ratios(number)),
        ("loggers['a']", lambda: plots.gradient_ratios({"a": number})),
        ("paths", lambda: plots.memory_paths(number)),
        ("terms['a']", lambda: plots.distance_terms({"a": number})),
        ("results['a']", lambda: plots.truncation({"a": number})),
        ("decay", lambda: plots.singular_values(number)),
        ("log_norms", lambda: plots.connectivity(number)),
        ("log_norms['a']", lambda: plots.connectivity({"a": number})),
        ("log_norms['a']", lambda: plots.connectivity({"a": [[1.0], [1.0, 2.0]]})),
        ("statistics", lambda: plots.saturation(number)),
        ("statistics['a']", lambda: plots.half_lives({"a": number})),
        ("tape", lambda: plots.gate_heatmap(number, "forget")),
        ("baselines", lambda: plots.loss_curves(one_curve, baselines=number)),
        ("histories['a']", lambda: plots.loss_curves({"a": [[1.0], [1.0, 2.0]]})),
    ]
    before = plt.get_fignums()
    for name, call in calls:
        with pytest.raises((TypeError, ValueError), match=rf"^{re.escape(name)}: expected .*got "):
            call()
    assert plt.get_fignums() == before
