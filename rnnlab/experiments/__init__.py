"""Experiments that tell plain from gated memory, each a function that returns a table and a picture.

    from rnnlab import experiments
    result = experiments.adding(seeds=5, runner=experiments.Runner("results", progress=True))
    print(result)
    result.plot()

or, from a shell and in two processes, `python -m rnnlab.experiments adding --seeds 5 --jobs 2`.
"""

from rnnlab.experiments.catalogue import (
    EXPERIMENTS,
    adding,
    before_after,
    explosion_clipping,
    gate_bias,
    gradient_flow,
    movie,
    ratio_predicts_success,
    temporal_order,
)
from rnnlab.experiments.results import Result, Row, spearman
from rnnlab.experiments.runner import Runner
from rnnlab.experiments.settings import GradientFlow, Network, Training

__all__ = [
    "EXPERIMENTS",
    "GradientFlow",
    "Network",
    "Result",
    "Row",
    "Runner",
    "Training",
    "adding",
    "before_after",
    "explosion_clipping",
    "gate_bias",
    "gradient_flow",
    "movie",
    "ratio_predicts_success",
    "spearman",
    "temporal_order",
]
