"""The gradient laboratory: where a gradient goes, and why.

Everything here reads a tape and goes back through `Cell.backward`, so it holds for any `Cell`.
Logarithms are natural.
"""

# fmt: off
# isort: off
from rnnlab.lab.gates import GateStatistics, gate_statistics
from rnnlab.lab.jacobian import (
    JacobianDecay, JacobianProduct, jacobian_decay, jacobian_product, jacobian_products, jacobians,
)
from rnnlab.lab.parts import (
    DistanceTerms, MemoryPaths, Truncation, distance_gradients, distance_terms, memory_paths, output_gradients,
    truncation,
)
from rnnlab.lab.reach import ShadedText, connectivity, input_gradient_norms

__all__ = [
    "DistanceTerms", "GateStatistics", "JacobianDecay", "JacobianProduct", "MemoryPaths", "ShadedText",
    "Truncation", "connectivity", "distance_gradients", "distance_terms", "gate_statistics", "input_gradient_norms",
    "jacobian_decay", "jacobian_product", "jacobian_products", "jacobians", "memory_paths", "output_gradients",
    "truncation",
]
# fmt: on
