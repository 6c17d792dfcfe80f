"""rnnlab: recurrent networks in NumPy whose every derivative can be read, and is proven.

    import rnnlab as rl

`rl.plots` is imported when it is first asked for, and matplotlib with it.
"""

from importlib import import_module
from types import ModuleType

from rnnlab import init, lab, ops, tasks
from rnnlab.cells import Cell, FourGateLSTMCell, Gradients, GRUCell, GRUResetBeforeCell, LSTMCell, RNNCell, Tape
from rnnlab.diagnose import Diagnosis, Finding, diagnose
from rnnlab.gradcheck import GradientMismatch, GradientReport, check_gradients
from rnnlab.gradnorm import GradientNormLogger
from rnnlab.losses import mean_squared_error, softmax_cross_entropy
from rnnlab.model import Batch, LossAndGrads, SequenceModel
from rnnlab.optim import SGD, Adam, clip_by_global_norm, linear_decay
from rnnlab.readout import Dense
from rnnlab.trainer import History, Trainer

__all__ = [
    "SGD",
    "Adam",
    "Batch",
    "Cell",
    "Dense",
    "Diagnosis",
    "Finding",
    "FourGateLSTMCell",
    "GRUCell",
    "GRUResetBeforeCell",
    "GradientMismatch",
    "GradientNormLogger",
    "GradientReport",
    "Gradients",
    "History",
    "LSTMCell",
    "LossAndGrads",
    "RNNCell",
    "SequenceModel",
    "Tape",
    "Trainer",
    "check_gradients",
    "clip_by_global_norm",
    "diagnose",
    "init",
    "lab",
    "linear_decay",
    "mean_squared_error",
    "ops",
    "plots",
    "softmax_cross_entropy",
    "tasks",
]


def __getattr__(name: str) -> ModuleType:
    if name == "plots":
        return import_module("rnnlab.plots")
    raise AttributeError(f"module 'rnnlab' has no attribute {name!r}")
