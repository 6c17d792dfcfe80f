"""What the laboratory's figures draw."""

import re
from collections.abc import Callable
from dataclasses import replace
from functools import cache, partial
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm

import rnnlab as rl
from rnnlab import lab, plots
from rnnlab.plots.style import shade
from tests.cases import random_case, random_cell

T = 9


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


@cache
def every_figure() -> dict[str, Callable[[Axes | None], Axes]]:
    cell, tape, d_h = recorded(rl.LSTMCell)
    logger, paths = logger_of(6, 6), lab.memory_paths(cell, tape, d_h)
    terms, statistics = lab.distance_terms(cell, tape, d_h), lab.gate_statistics(cell, tape)
    return {
        "loss_curves": lambda ax: plots.loss_curves({"a": [1.0]}, ax=ax),
        "gradient_flow": lambda ax: plots.gradient_flow({"a": [1.0, 2.0]}, ax=ax),
        "gate_heatmap": lambda ax: plots.gate_heatmap(tape, "forget", ax=ax),
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
    new.figure.canvas.draw()
    assert new.get_xlabel()
    assert new.get_ylabel()


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


def test_zeros_and_infinities_leave_the_scale_of_the_map_alone() -> None:
    logger = logger_of(4)
    (norms,) = logger.norms()
    norms[1], norms[2] = 0, np.inf
    ax = plots.gradient_norm_map(logger)
    ax.figure.canvas.draw()
    (mesh,) = ax.collections
    rest = norms[[0, 3, 4]]
    assert mesh.get_clim() == (rest.min(), rest.max())


def test_ratios_and_rates_are_the_loggers() -> None:
    logger = logger_of(4, 6)
    x, y = plots.gradient_ratios({"LSTM": logger}).lines[0].get_data()
    assert list(x) == [10, 20]
    np.testing.assert_array_equal(y, logger.ratios())
    np.testing.assert_array_equal(
        plots.gradient_ratios({"LSTM": logger}, state="c", per_step=True).lines[0].get_ydata(), logger.rates("c")
    )


def test_a_gate_keeps_its_colour_and_each_parameter_has_a_shade_of_it() -> None:
    logger = logger_of(4, 6)
    blocks = ["W_h[forget]", "W_h[input]", "W_x[forget]"]
    ax = plots.parameter_norms(logger, blocks)
    lines = ax.lines
    assert ax.get_yscale() == "log"
    assert [text.get_text() for text in ax.texts] == blocks
    np.testing.assert_array_equal(lines[2].get_ydata(), logger.param_norms("W_x[forget]"))
    assert lines[0].get_color() == plots.SKY_BLUE
    assert lines[1].get_color() == plots.ORANGE
    assert lines[2].get_color() == shade(plots.SKY_BLUE, 1) != plots.SKY_BLUE
    assert {line.get_linestyle() for line in lines} == {"-"}  # a dash is a reference line


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
    ax = plots.distance_terms({"RNN": terms}, "W_x[candidate]")
    np.testing.assert_array_equal(ax.lines[0].get_ydata(), terms.norms["W_x[candidate]"])
    assert ax.get_yscale() == "log"
    result = lab.truncation(*model())
    for quantity, values in (("relative error", result.relative_error["all"]), ("angle", result.angle())):
        ax = plots.truncation({"GRU": result}, quantity=quantity)
        assert ("degrees" in ax.get_ylabel()) == (quantity == "angle")
        x, y = ax.lines[0].get_data()
        np.testing.assert_array_equal(x, result.lengths)
        np.testing.assert_array_equal(y, values)


def test_singular_values_stand_in_powers_of_ten_beside_bound_and_gates() -> None:
    cell, tape, _ = recorded(rl.RNNCell)
    decay = lab.jacobian_decay(cell, tape)
    ax = plots.singular_values(decay, sequence=1)
    drawn = {line.get_label(): line for line in ax.lines}
    assert decay.log_bound is not None
    for label, values in (("largest = norm", decay.log_norm), ("bound max|φ'| |W|", decay.log_bound)):
        np.testing.assert_allclose(drawn[label].get_ydata(), values[:, 1] / np.log(10))
    assert len(ax.lines) == 4 + 2
    for line, values in zip(ax.lines, decay.log_singular_values[:, 1].T, strict=False):
        np.testing.assert_allclose(line.get_ydata(), values / np.log(10))
    cell, tape, _ = recorded(rl.GRUCell)
    kept = lab.jacobian_decay(cell, tape).log_gate_product
    assert kept is not None
    drawn = {line.get_label(): line for line in plots.singular_values(lab.jacobian_decay(cell, tape)).lines}
    for label, place in (("best", 3), ("median", 2)):
        of_unit = np.sort(kept[:, 0])[:, place] / np.log(10)
        np.testing.assert_allclose(drawn[f"gates alone, {label} unit"].get_ydata(), of_unit)


def test_connectivity_names_its_events_and_means_over_the_batch() -> None:
    logs = np.log([[1.0, 100.0], [10.0, 10.0]])
    ax = plots.connectivity({"RNN": logs, "LSTM": logs[:, 1]}, events={1: "the reveal"})
    np.testing.assert_allclose(ax.lines[0].get_ydata(), [1, 1])
    np.testing.assert_allclose(ax.lines[1].get_ydata(), [2, 1])
    (top,) = ax.child_axes
    assert [(tick, name.get_text()) for tick, name in zip(top.get_xticks(), top.get_xticklabels(), strict=True)] == [
        (1, "the reveal")
    ]


def test_saturation_draws_units_of_the_same_shares_as_one_point_whose_area_counts_them() -> None:
    left, right = np.array([[0.0, 0.001, 0.0, 0.3], [1.0] * 4]), np.array([[1.0, 0.998, 1.0, 0.5], [0.0] * 4])
    statistics = lab.GateStatistics(("forget", "output"), left, right, left, np.ones(4), 0.1, 0.9)
    ax = plots.saturation(statistics)
    forget, output = (points for points in ax.collections if len(points.get_offsets()))
    assert forget.get_offsets().tolist() == [[0.0, 1.0], [0.3, 0.5]]
    assert output.get_offsets().tolist() == [[1.0, 0.0]]
    one = forget.get_sizes()[1]
    assert [*forget.get_sizes(), *output.get_sizes()] == [3 * one, one, 4 * one]


def test_the_key_of_saturation_has_a_point_for_each_gate_and_says_what_the_area_is() -> None:
    cell, tape, _ = recorded(rl.LSTMCell)
    ax = plots.saturation(lab.gate_statistics(cell, tape))
    key = ax.get_legend()
    assert [text.get_text() for text in key.get_texts()] == ["input gate", "forget gate", "output gate"]
    assert key.get_title().get_text() == "area: number of units"
    drawn = [points.get_edgecolor().tolist() for points in ax.collections if len(points.get_offsets())]
    assert [handle.get_edgecolor().tolist() for handle in key.legend_handles] == drawn


def test_half_lives_are_drawn_longest_first() -> None:
    cell, tape, _ = recorded(rl.LSTMCell)
    statistics = lab.gate_statistics(cell, tape)
    lines = plots.half_lives({"LSTM: before": statistics, "LSTM: after": statistics}).lines
    assert lines[0].get_color() != lines[1].get_color()
    x, y = lines[0].get_data()
    np.testing.assert_array_equal(y, np.sort(statistics.half_life)[::-1])
    np.testing.assert_array_equal(x, [0.25, 0.5, 0.75, 1])


def test_a_figure_shows_the_layer_and_the_parameter_that_is_asked_for() -> None:
    first, second, logger = (
        random_cell(rl.GRUCell, 3, 4),
        random_cell(rl.GRUCell, 4, 4, seed=1),
        rl.GradientNormLogger(),
    )
    for step, (x, state, d_h, _) in enumerate((random_case(first, T, B=2, seed=n) for n in (5, 6)), start=1):
        lower = first.forward(x, state)
        upper = second.forward(lower.h)
        above = second.backward(upper, d_h)
        logger.record(step, [first, second], [lower, upper], [first.backward(lower, np.asarray(above.x)), above])
    for layer in (0, 1):
        (mesh,) = plots.gradient_norm_map(logger, layer=layer).collections
        np.testing.assert_array_equal(mesh.get_array(), logger.norms(layer=layer))
        for ax, values in (
            (plots.gradient_ratios({"GRU": logger}, layer=layer), logger.ratios(layer=layer)),
            (plots.gradient_ratios({"GRU": logger}, layer=layer, per_step=True), logger.rates(layer=layer)),
            (plots.parameter_norms(logger, ["b_hn"], layer=layer), logger.param_norms("b_hn", layer)),
        ):
            np.testing.assert_array_equal(ax.lines[0].get_ydata(), values)
    result = lab.truncation(*model())
    for quantity, shown in (
        ("relative error", result.relative_error["cells.0.W_x"]),
        ("angle", result.angle("cells.0.W_x")),
    ):
        ax = plots.truncation({"GRU": result}, quantity=quantity, name="cells.0.W_x")
        np.testing.assert_array_equal(ax.lines[0].get_ydata(), shown)


def failing_figures() -> list[Any]:
    """(error, argument, plot, its arguments): of the right kind, but they leave nothing to draw or ask for what is not
    there. Where several curves are given, the first is good."""
    cell, tape, d_h = recorded(rl.LSTMCell)
    good, empty, repeated = logger_of(6, 6), rl.GradientNormLogger(), logger_of(6, 6)
    repeated.records *= 2
    dead = cell.with_params(cell.params | {"W_h": 0 * cell.W_h})
    dead.set_bias("forget", -1000.0)
    still = lab.jacobian_decay(dead, dead.forward(tape.x))
    at_the_end, zeros = lab.memory_paths(dead, dead.forward(tape.x), d_h), lab.memory_paths(cell, tape, 0 * d_h)
    terms, no_terms = lab.distance_terms(cell, tape, d_h), lab.distance_terms(cell, tape, 0 * d_h)
    statistics = lab.gate_statistics(cell, tape)
    open_gates = replace(statistics, half_life=np.full(4, np.inf))
    decay, cut = lab.jacobian_decay(cell, tape), {"a": lab.truncation(*model())}
    reach, nothing = np.zeros(T), np.full(T, -np.inf)
    gate = partial(plots.gate_heatmap, tape)
    rows: list[tuple[type[Exception], str, Any, tuple[Any, ...], dict[str, Any]]] = [
        (ValueError, "histories['b']", plots.loss_curves, ({"a": [1], "b": []},), {}),
        (ValueError, "norms['b']", plots.gradient_flow, ({"a": [1.0], "b": [0.0]},), {}),
        (KeyError, "name", gate, ("update",), {}),
        (IndexError, "sequence", gate, ("input",), {"sequence": 2}),
        (TypeError, "sequence", gate, ("input",), {"sequence": 1.0}),
        (TypeError, "events", gate, ("input",), {"events": {"a": "text"}}),
        (TypeError, "events[1]", gate, ("input",), {"events": {1: 3}}),
        (IndexError, "events", gate, ("input",), {"events": {T: ""}}),
        (ValueError, "logger", plots.gradient_norm_map, (empty,), {}),
        (ValueError, "logger", plots.gradient_norm_map, (repeated,), {}),
        (KeyError, "state", plots.gradient_norm_map, (good,), {"state": "zz"}),
        (ValueError, "loggers['b']", plots.gradient_ratios, ({"a": good, "b": empty},), {}),
        (IndexError, "layer", plots.gradient_ratios, ({"a": good},), {"layer": 1}),
        (ValueError, "blocks['W_h[forget]']", plots.parameter_norms, (empty, ["W_h[forget]"]), {}),
        (KeyError, "block", plots.parameter_norms, (good, ["W_h[forget]", "W_h"]), {}),
        (ValueError, "paths", plots.memory_paths, (zeros,), {}),
        (ValueError, "paths", plots.memory_paths, (zeros,), {"stacked": True}),
        (ValueError, "paths", plots.memory_paths, (at_the_end,), {}),
        (ValueError, "terms['b']", plots.distance_terms, ({"a": terms, "b": no_terms},), {}),
        (KeyError, "block", plots.distance_terms, ({"a": terms}, "zz"), {}),
        (ValueError, "quantity", plots.truncation, (cut,), {"quantity": "length"}),
        (KeyError, "name", plots.truncation, (cut,), {"name": "zz"}),
        (KeyError, "name", plots.truncation, (cut,), {"quantity": "angle", "name": "zz"}),
        (IndexError, "sequence", plots.singular_values, (decay,), {"sequence": 7}),
        (ValueError, "decay", plots.singular_values, (still,), {}),
        (ValueError, "log_norms['b']", plots.connectivity, ({"a": reach, "b": nothing},), {}),
        (IndexError, "events", plots.connectivity, ({"a": reach},), {"events": {T: ""}}),
        (ValueError, "statistics['b']", plots.half_lives, ({"a": statistics, "b": open_gates},), {}),
    ]
    return [pytest.param(*row, id=f"{getattr(row[2], '__name__', 'gate_heatmap')} {row[1]} {row[4]}") for row in rows]


@pytest.mark.parametrize(("error", "argument", "plot", "given", "named"), failing_figures())
def test_a_plot_that_fails_leaves_no_figure_and_nothing_on_the_axes_it_was_given(
    error: type[Exception], argument: str, plot: Any, given: tuple[Any, ...], named: dict[str, Any]
) -> None:
    wanted = rf"""^["']?{re.escape(argument)}: expected .*got """  # a KeyError quotes its message
    with pytest.raises(error, match=wanted):
        plot(*given, **named)
    assert not plt.get_fignums()
    figure, ax = plt.subplots()
    with pytest.raises(error, match=wanted):
        plot(*given, ax=ax, **named)
    assert not ax.has_data()
    assert figure.axes == [ax]


def test_a_gradient_that_stays_at_the_last_step_is_no_line_but_has_shares() -> None:
    cell, tape, d_h = recorded(rl.RNNCell)
    dead = cell.with_params(cell.params | {"W_h": 0 * cell.W_h})
    paths = lab.memory_paths(dead, dead.forward(tape.x), d_h)
    assert plots.memory_paths(paths, stacked=True).patches
