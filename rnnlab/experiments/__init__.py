"""Experiments that tell plain from gated memory, each a function that returns a table and a picture.

    from rnnlab import experiments
    result = experiments.adding(seeds=5, runner=experiments.Runner("results", progress=True))
    print(result)
    result.plot()

or, from a shell: `python -m rnnlab.experiments adding --seeds 5`, with `--jobs 2` in two processes and with
`--scheduler tcp://host:8786` on a Dask cluster.
"""

# fmt: off
# isort: off
from rnnlab.experiments.catalogue import (
    EXPERIMENTS, adding, before_after, explosion_clipping, gate_bias, gradient_flow, movie, ratio_predicts_success,
    temporal_order,
)
from rnnlab.experiments.results import Result, Row, spearman
from rnnlab.experiments.runner import Runner
from rnnlab.experiments.settings import GradientFlow, Network, Training

__all__ = [
    "EXPERIMENTS", "GradientFlow", "Network", "Result", "Row", "Runner", "Training", "adding", "before_after",
    "explosion_clipping", "gate_bias", "gradient_flow", "movie", "ratio_predicts_success", "spearman",
    "temporal_order",
]
# fmt: on
