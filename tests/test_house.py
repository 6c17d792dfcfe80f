"""How the library is built: one direction of imports, files of two screens at most, documented arguments."""

import ast
import graphlib
from pathlib import Path

import rnnlab as rl

ROOT = Path(rl.__file__).parent.parent
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted((ROOT / "rnnlab").rglob("*.py"))
}


def imported(path):
    """The library's modules that this file names in an import, also within functions and for type checkers."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "rnnlab":
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from (name if name in MODULES else node.module for name in names)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in MODULES)


def test_no_import_goes_round_in_a_circle():
    arrows = {name: set(imported(path)) for name, path in MODULES.items()}
    del arrows["rnnlab.interop.pytorch"], arrows["rnnlab.interop.keras"], arrows["rnnlab.interop.onnx"]  # on demand
    order = list(graphlib.TopologicalSorter(arrows).static_order())
    assert order.index("rnnlab.ops") < order.index("rnnlab.cells.base") < order.index("rnnlab.trainer")
    assert "rnnlab" not in set().union(*arrows.values())  # nothing below imports the front page
