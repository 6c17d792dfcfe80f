"""What the plots draw: the data, the scales, the limits, the words."""

from itertools import pairwise

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.text import Annotation, Text

import rnnlab as rl
from rnnlab import plots
from rnnlab.plots import style

T, B, D, H = 12, 3, 2, 5


@pytest.fixture
def tape() -> rl.Tape:
    x = np.random.default_rng(0).normal(size=(T, B, D))
    return rl.LSTMCell(D, H, rng=0).forward(x)


def labels_of(ax: Axes) -> list[str]:
    return [text.get_text() for text in ax.texts if isinstance(text, Annotation)]


# ---- loss curves ------------------------------------------------------------------------------


def test_loss_curves_draw_each_history_against_its_step() -> None:
    ax = plots.loss_curves({"RNN": rl.History([3.0, 2.0, 1.0], [1.0, 1.0, 1.0]), "GRU": [4.0, 0.5]})
    rnn, gru = ax.lines
    assert rnn.get_xydata().tolist() == [[1, 3.0], [2, 2.0], [3, 1.0]]
    assert gru.get_xydata().tolist() == [[1, 4.0], [2, 0.5]]
    assert ax.get_yscale() == "linear"
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("training step", "training loss")


def test_smoothing_is_the_mean_of_the_last_steps_and_says_so() -> None:
    losses = np.random.default_rng(0).random(20)
    ax = plots.loss_curves({"LSTM": losses}, smooth=4)
    x, y = ax.lines[0].get_data()
    assert list(x) == list(range(4, 21))
    np.testing.assert_allclose(y, [losses[n - 4 : n].mean() for n in range(4, 21)], rtol=1e-12)
    assert "mean of the last 4 steps" in ax.get_ylabel()


def test_a_shorter_curve_does_not_cut_off_a_longer_one() -> None:
    assert plots.loss_curves({"LSTM": np.ones(10), "GRU": np.ones(5)}).get_xlim() == (1, 10)
    assert plots.gradient_flow({"LSTM": np.ones(10), "GRU": [np.nextafter(0, 1)] * 5}).get_xlim() == (0, 9)


def test_baselines_are_dashed_horizontals_over_all_steps() -> None:
    ax = plots.loss_curves({"LSTM": [3.0, 2.0, 1.0]}, baselines={"chance": 1.5}, log=True)
    line = ax.lines[1]
    assert line.get_xydata().tolist() == [[1, 1.5], [3, 1.5]]
    assert line.get_linestyle() == "--"
    assert line.get_color() == plots.GREY
    assert ax.get_yscale() == "log"
    assert labels_of(ax) == ["LSTM", "chance"]


# ---- gradient flow ----------------------------------------------------------------------------


def test_gradient_flow_draws_the_norms_on_a_logarithmic_axis() -> None:
    norms = {"RNN": np.array([1e-6, 1e-3, 2.0]), "LSTM: c": [0.1, 0.2, 0.4]}
    ax = plots.gradient_flow(norms)
    for line, curve in zip(ax.lines, norms.values(), strict=True):
        assert line.get_xydata().tolist() == [[t, norm] for t, norm in enumerate(curve)]
    assert ax.get_yscale() == "log"
    assert ax.get_xlim() == (0, 2)
    assert "time step" in ax.get_xlabel()
    assert "norm of dL/dstate" in ax.get_ylabel()
    assert labels_of(ax) == list(norms)
    named = plots.gradient_flow(norms, quantity="norm of dL/dc", xlabel="steps back")
    assert (named.get_ylabel(), named.get_xlabel()) == ("norm of dL/dc", "steps back")


def test_relative_flow_is_divided_by_the_last_value_above_zero_and_a_zero_leaves_a_gap() -> None:
    ax = plots.gradient_flow({"RNN": [1.0, 2.0, 4.0], "four-gate LSTM: c": [1.0, 0.0, 5.0, 0.0]}, relative=True)
    np.testing.assert_array_equal(ax.lines[0].get_ydata(), [0.25, 0.5, 1.0])
    np.testing.assert_array_equal(ax.lines[1].get_ydata(), [0.2, np.nan, 1.0, np.nan])
    assert "divided by its last value" in ax.get_ylabel()
    assert "divided by its last value" not in plots.gradient_flow({"RNN": [1.0, 2.0]}).get_ylabel()


# ---- gates ------------------------------------------------------------------------------------


def test_a_gate_map_shows_one_sequence_units_down_and_time_across(tape: rl.Tape) -> None:
    ax = plots.gate_heatmap(tape, "forget", sequence=2)
    (image,) = ax.collections
    np.testing.assert_array_equal(image.get_array(), tape.gate("forget")[:, 2].T)
    assert image.get_clim() == (0, 1)
    assert image.get_cmap().name == "viridis"
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("time step t", "unit")
    assert image.colorbar is not None
    assert "forget gate: 1 keeps the memory" in image.colorbar.ax.get_ylabel()


def test_a_candidate_runs_from_minus_one_to_one_around_a_neutral_middle(tape: rl.Tape) -> None:
    (image,) = plots.gate_heatmap(tape, "candidate").collections
    assert image.get_clim() == (-1, 1)
    red, green, blue, _ = image.get_cmap()(0.5)
    assert min(red, green, blue) > 0.95


def test_a_relu_candidate_widens_the_scale_on_both_sides() -> None:
    cell = rl.RNNCell(1, 1, rng=0, activation="relu")
    cell.W_x[...], cell.W_h[...], cell.b[...] = 1.0, 0.0, 0.0
    (image,) = plots.gate_heatmap(cell.forward(np.full((4, 1, 1), 2.5)), "candidate").collections
    assert image.get_clim() == (-2.5, 2.5)


def test_sorting_puts_the_largest_mean_at_the_top(tape: rl.Tape) -> None:
    (image,) = plots.gate_heatmap(tape, "input", sort=True).collections
    means = np.asarray(image.get_array()).mean(axis=1)
    assert (np.diff(means) <= 0).all()
    np.testing.assert_allclose(np.sort(means), np.sort(tape.gate("input")[:, 0].mean(axis=0)), rtol=1e-12)


def test_events_are_named_at_their_time_steps(tape: rl.Tape) -> None:
    ax = plots.gate_heatmap(tape, "output", events={3: "reveal", 9: "question"})
    (top,) = ax.child_axes
    ticks = {tick: label.get_text() for tick, label in zip(top.get_xticks(), top.get_xticklabels(), strict=True)}
    assert ticks == {3: "reveal", 9: "question"}


@pytest.mark.parametrize(
    ("events", "rotation"),
    [({3: "first mark", 9: "second mark"}, 0), ({3: "first mark", 4: "second mark"}, 90), (dict(enumerate("abcd")), 0)],
)
def test_names_of_events_stand_upright_where_they_would_overlap(
    tape: rl.Tape, events: dict[int, str], rotation: float
) -> None:
    ax = plots.gate_heatmap(tape, "output", events=events)
    ax.figure.canvas.draw()
    (top,) = ax.child_axes
    labels = top.get_xticklabels()
    assert {label.get_rotation() for label in labels} == {rotation}
    boxes = [label.get_window_extent() for label in labels]
    assert not any(one.overlaps(other) for one, other in pairwise(boxes))


# ---- the shared style -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("label", "colour"),
    [
        ("RNN", plots.VERMILLION),
        ("LSTM, chrono: c", plots.BLUE),
        ("GRU", plots.GREEN),
        ("GRU reset before", plots.SKY_BLUE),
        ("GRUResetBeforeCell", plots.SKY_BLUE),
        ("four-gate LSTM", plots.PURPLE),
        ("FourGateLSTMCell", plots.PURPLE),
        ("5-gram", None),
    ],
)
def test_a_label_takes_the_colour_of_the_cell_that_it_begins_with(label: str, colour: str | None) -> None:
    assert plots.colour_of(label) == colour


def test_no_two_curves_of_a_figure_look_the_same() -> None:
    labels = ["LSTM", "LSTM, chrono", "LSTM: c", "RNN", "GRU", "GRU reset before", "four-gate LSTM", "AR(9)", "ridge"]
    styles = plots.line_styles(labels)
    assert len({style["color"] for style in styles}) == len(labels)
    assert not any("linestyle" in style for style in styles)  # a dash is a reference line
    widths = [style["linewidth"] for style in styles]
    assert widths == sorted(widths, reverse=True)  # a curve that lies on another does not hide it


def luminance(colour: str) -> float:
    """Relative luminance, WCAG 2.2."""
    parts = np.array(to_rgb(colour))
    return float(np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4) @ (0.2126, 0.7152, 0.0722))


def test_every_colour_has_a_contrast_of_at_least_three_to_one_on_white() -> None:
    for colour in {*style.CELL_COLOURS.values(), *style.OTHER_COLOURS, *style.PATH_COLOURS.values(), style.GREY}:
        assert 1.05 / (luminance(colour) + 0.05) >= 3, colour


def test_a_figure_is_black_on_opaque_white_and_large_enough_in_a_dark_notebook() -> None:
    with plt.style.context("dark_background"):
        ax = plots.loss_curves({"LSTM": [2.0, 1.0]}, baselines={"chance": 1.5})
        for surface in (ax, ax.figure):
            assert surface.get_facecolor() == (1, 1, 1, 1)
        for text in (ax.xaxis.label, ax.yaxis.label, *ax.get_xticklabels(), *ax.texts):
            assert (to_rgb(text.get_color()), text.get_fontsize()) == ((0, 0, 0), 11)


def test_spread_keeps_the_order_the_distance_and_what_is_far_apart_already() -> None:
    np.testing.assert_allclose(plots.spread(np.array([0.0, 0.5, 1.0]), 0.1), [0.0, 0.5, 1.0])
    moved = plots.spread(np.array([0.2, 0.5, 0.5, 0.5, 0.8]), 0.1)
    np.testing.assert_allclose(moved, [0.2, 0.4, 0.5, 0.6, 0.8])


@pytest.mark.parametrize("draw", ["loss", "flow"])
def test_labels_lie_inside_the_figure_and_do_not_overlap(draw: str) -> None:
    curves = {f"a rather long label {n}": [2.0, 1.0, 1.0 + n / 1000] for n in range(6)}
    ax = plots.loss_curves(curves) if draw == "loss" else plots.gradient_flow(curves)
    canvas = FigureCanvasAgg(ax.figure)  # drawn, so that the layout is settled
    canvas.draw()
    boxes = sorted((Text.get_window_extent(text, canvas.get_renderer()) for text in ax.texts), key=lambda box: box.y0)
    assert len(boxes) == 6
    for box in boxes:
        assert 0 <= box.x0 < box.x1 <= ax.figure.bbox.width
        assert 0 <= box.y0 < box.y1 <= ax.figure.bbox.height
    for below, above in pairwise(boxes):
        assert below.y1 <= above.y0
