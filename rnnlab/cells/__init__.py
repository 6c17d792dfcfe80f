"""The cells: one file for each kind, with its equations, forward lines and derivative lines."""

from rnnlab.cells.base import Cell, Gradients, Tape
from rnnlab.cells.bidirectional import Bidirectional, Reversed
from rnnlab.cells.four_gate import FourGateLSTMCell
from rnnlab.cells.gru import GRUCell, GRUResetBeforeCell
from rnnlab.cells.lstm import LSTMCell
from rnnlab.cells.rnn import RNNCell

__all__ = [
    "Bidirectional",
    "Cell",
    "FourGateLSTMCell",
    "GRUCell",
    "GRUResetBeforeCell",
    "Gradients",
    "LSTMCell",
    "RNNCell",
    "Reversed",
    "Tape",
]
