"""Plots of losses, gradients and gates. Every function takes an `ax` (None makes one) and returns it; none shows it.

One colour stands for one kind of cell in every figure, a dash for a reference line alone. Curves are labelled at their
ends, so that no legend has to be decoded.
"""

# fmt: off
# isort: off
from rnnlab.plots.diagram import cell_diagram
from rnnlab.plots.figures import gradient_flow, gradient_norm_map, gradient_ratios, loss_curves, parameter_norms
from rnnlab.plots.laboratory import (
    connectivity, distance_terms, gate_heatmap, half_lives, memory_paths, saturation, singular_values, truncation,
)
from rnnlab.plots.style import (
    BLACK, BLUE, CELL_COLOURS, GREEN, GREY, OLIVE, ORANGE, PURPLE, SKY_BLUE, VERMILLION, axes, colour_of, line_styles,
    spread,
)

__all__ = [
    "BLACK", "BLUE", "CELL_COLOURS", "GREEN", "GREY", "OLIVE", "ORANGE", "PURPLE", "SKY_BLUE", "VERMILLION", "axes",
    "cell_diagram", "colour_of", "connectivity", "distance_terms", "gate_heatmap", "gradient_flow", "gradient_norm_map",
    "gradient_ratios", "half_lives", "line_styles", "loss_curves", "memory_paths", "parameter_norms", "saturation",
    "singular_values", "spread", "truncation",
]
# fmt: on
