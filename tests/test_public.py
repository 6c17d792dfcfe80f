"""The public surface: every name is there and explained, and the import costs NumPy alone."""

from __future__ import annotations

import ast
import inspect
import subprocess
import sys
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import rnnlab as rl
from tests.cases import each_cell

PACKAGE = Path(rl.__file__).parent
SURFACE = {
    *("Cell", "RNNCell", "LSTMCell", "GRUCell", "GRUResetBeforeCell", "FourGateLSTMCell", "Tape", "Gradients"),
    *("Dense", "Batch", "SequenceModel", "softmax_cross_entropy", "mean_squared_error"),
    *("Bidirectional", "Reversed", "Embedding", "pad", "sigmoid_cross_entropy", "clip_by_value", "EarlyStopping"),
    *("Adagrad", "RMSProp"),
    *("SGD", "Adam", "clip_by_global_norm", "Trainer", "History", "GradientNormLogger"),
    *("check_gradients", "GradientMismatch", "init", "plots", "tasks"),
}
MEMBERS: dict[Any, str] = {
    rl.Cell: "forward backward step step_backward recurrent_grads back memory_gradient with_params astype",
    rl.Tape: "h gate",
    rl.SequenceModel: "params predict loss_and_grads with_params astype",
    rl.Dense: "forward backward with_params",
    rl.Embedding: "forward backward check_input",
    rl.Bidirectional: "forward backward cells parts check_tape",
    rl.Trainer: "fit",
    rl.GradientNormLogger: "record norms steps",
    rl.tasks: "adding movie temporal_order char_text ngram_bits python_reference",
    rl.init: "uniform glorot orthogonal identity chrono",
    rl.ops: "sigmoid softmax log_softmax relu",
}


def test_every_name_of_the_design_is_public() -> None:
    assert set(rl.__all__) >= SURFACE
    assert sorted(set(rl.__all__)) == sorted(rl.__all__)


@pytest.mark.parametrize("name", rl.__all__)
def test_every_public_name_is_there_and_has_a_docstring_of_its_own(name: str) -> None:
    value = getattr(rl, name)
    assert isinstance(value, ModuleType) or inspect.isclass(value) or inspect.isfunction(value)
    text = value.__doc__ or ""  # not inspect.getdoc, which falls back on the base class
    assert len(text.split()) >= 4
    assert not text.startswith(f"{name}(")  # the signature that dataclass writes is no docstring


@pytest.mark.parametrize(("owner", "names"), MEMBERS.items(), ids=lambda v: getattr(v, "__name__", ""))
def test_every_member_of_the_design_is_explained(owner: Any, names: str) -> None:
    for name in names.split():
        member = inspect.getattr_static(owner, name)
        assert (member.__doc__ or "").strip(), name


@each_cell
def test_a_cell_writes_only_what_is_its_own(cell_class: type[rl.Cell]) -> None:
    """No cell has a time loop of its own."""
    own = {name for base in cell_class.__mro__ if base not in rl.Cell.__mro__ for name in vars(base)}
    assert {"step", "step_backward"} <= own
    assert not own & {"forward", "backward", "with_params", "astype", "back"}


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no_such_name"):
        rl.no_such_name  # noqa: B018 - reading the attribute is the test


def test_importing_rnnlab_imports_numpy_alone() -> None:
    """In a fresh process: of everything installed beside Python itself only NumPy is loaded."""
    code = (
        "import sys, rnnlab\n"
        "found = {name.partition('.')[0] for name, module in sys.modules.items()\n"
        "         if 'site-packages' in (getattr(module, '__file__', None) or '')}\n"
        "print(*sorted(found - {'rnnlab'}))\n"
        "assert not {'matplotlib', 'rnnlab.experiments'} & {*sys.modules}\n"
        "rnnlab.plots\n"
        "assert 'matplotlib' in sys.modules\n"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    loaded = {name for name in run.stdout.split() if not name.startswith(("_", "sitecustomize"))}
    assert loaded == {"numpy"}


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


class RuntimeImports(ast.NodeVisitor):
    """The top-level names of all modules that a source file imports, apart from those for type checkers."""

    def __init__(self, path: Path) -> None:
        self.names: set[str] = set()
        self.visit(tree(path))

    def visit_If(self, node: ast.If) -> None:
        if ast.unparse(node.test) != "TYPE_CHECKING":
            self.generic_visit(node)

    def visit_Import(self, node: ast.Import) -> None:
        self.names |= {alias.name.partition(".")[0] for alias in node.names}

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        self.names.add((node.module or "").partition(".")[0])


def test_matplotlib_is_imported_in_plots_alone() -> None:
    paths = PACKAGE.rglob("*.py")
    importing = {p.relative_to(PACKAGE).as_posix() for p in paths if "matplotlib" in RuntimeImports(p).names}
    assert all(name.startswith(("plots", "lesson/", "experiments/figure")) for name in importing), importing


def test_no_random_number_comes_from_the_global_generator() -> None:
    """`np.random` may be named for its Generator types and `default_rng` alone."""
    allowed = {"Generator", "default_rng", "SeedSequence"}
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(tree(path)):
            if (
                isinstance(node, ast.Attribute)
                and isinstance(node.value, ast.Attribute)
                and node.value.attr == "random"
            ):
                assert node.attr in allowed, f"{path.name}:{node.lineno}"
        assert "random" not in RuntimeImports(path).names, path.name


def test_the_package_says_that_it_is_typed() -> None:
    assert (PACKAGE / "py.typed").exists()
