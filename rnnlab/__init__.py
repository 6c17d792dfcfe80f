"""rnnlab: recurrent networks in NumPy whose every derivative can be read, and is proven.

    import rnnlab as rl

What checks, analyses or draws is imported when it is first asked for, and matplotlib with `rl.plots`.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from rnnlab import init, ops, tasks
from rnnlab.batch import Batch, BatchStream, LossAndGrads, pad
from rnnlab.cells import (
    Bidirectional,
    Cell,
    FourGateLSTMCell,
    Gradients,
    GRUCell,
    GRUResetBeforeCell,
    LSTMCell,
    Reversed,
    RNNCell,
    Tape,
)
from rnnlab.gradnorm import GradientNormLogger
from rnnlab.history import History
from rnnlab.loading import load
from rnnlab.losses import mean_squared_error, sigmoid_cross_entropy, softmax_cross_entropy
from rnnlab.model import SequenceModel
from rnnlab.optim import SGD, Adagrad, Adam, Optimizer, RMSProp, clip_by_global_norm, clip_by_value, linear_decay
from rnnlab.readout import Dense, Embedding
from rnnlab.run import Checkpoint, EarlyStopping
from rnnlab.trainer import Trainer

if TYPE_CHECKING:
    from rnnlab import experiments, interop, lab, plots
    from rnnlab.diagnosis import Diagnosis, Finding, diagnose
    from rnnlab.lesson.explain import StepExplanation, explain_step
    from rnnlab.proof.gradcheck import check_gradients
    from rnnlab.proof.gradreport import GradientMismatch, GradientReport

_ON_DEMAND = {
    "rnnlab.lesson.explain": ("StepExplanation", "explain_step"),
    "rnnlab.proof.gradcheck": ("check_gradients",),
    "rnnlab.proof.gradreport": ("GradientMismatch", "GradientReport"),
    "rnnlab.diagnosis": ("Diagnosis", "Finding", "diagnose"),
}

# fmt: off
__all__ = [
    "SGD", "Adagrad", "Adam", "Batch", "BatchStream", "Bidirectional", "Cell", "Checkpoint", "Dense", "Diagnosis",
    "EarlyStopping", "Embedding", "Finding", "FourGateLSTMCell", "GRUCell", "GRUResetBeforeCell", "GradientMismatch",
    "GradientNormLogger", "GradientReport", "Gradients", "History", "LSTMCell", "LossAndGrads", "Optimizer",
    "RMSProp", "RNNCell", "Reversed", "SequenceModel", "StepExplanation", "Tape", "Trainer", "check_gradients",
    "clip_by_global_norm", "clip_by_value", "diagnose", "experiments", "explain_step", "init", "interop", "lab",
    "linear_decay", "load", "mean_squared_error", "ops", "pad", "plots", "sigmoid_cross_entropy",
    "softmax_cross_entropy", "tasks",
]
# fmt: on


def __dir__() -> list[str]:
    return sorted(__all__)


def __getattr__(name: str) -> Any:
    if name in ("experiments", "interop", "lab", "plots"):
        return import_module(f"rnnlab.{name}")
    for module, names in _ON_DEMAND.items():
        if name in names:
            return getattr(import_module(module), name)
    raise AttributeError(f"module 'rnnlab' has no attribute {name!r}")
