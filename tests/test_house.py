"""How the library is built: imports go one way, no file is long, and what is public is described."""

import ast
import dataclasses
import graphlib
import inspect
import re
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


def public():
    """(name, callable) of everything a user can call: the modules' functions and classes, and their methods."""
    for module in (rl, rl.experiments, rl.interop, rl.lab, rl.plots, rl.tasks, rl.init, rl.ops):
        own = [name for name, thing in vars(module).items() if getattr(thing, "__module__", "") == module.__name__]
        for name in getattr(module, "__all__", [name for name in own if not name.startswith("_")]):
            thing = getattr(module, name)
            if callable(thing) and str(getattr(thing, "__module__", "")).startswith("rnnlab"):
                yield f"{module.__name__}.{name}", thing
            if inspect.isclass(thing):
                for method in {m for cls in thing.__mro__ if cls.__module__.startswith("rnnlab") for m in vars(cls)}:
                    if not method.startswith("_") and inspect.isroutine(getattr(thing, method)):
                        yield f"{module.__name__}.{name}.{method}", getattr(thing, method)


def test_every_public_callable_with_more_than_two_arguments_describes_each_of_them_and_its_result():
    unsaid = {}
    for name, thing in public():
        if inspect.isclass(thing) and dataclasses.is_dataclass(thing):
            continue  # whose fields stand in its docstring, one a line
        signature = inspect.signature(thing)
        wanted = [p.name for p in signature.parameters.values() if p.name != "self" and p.kind != p.VAR_KEYWORD]
        if len(wanted) <= 2:
            continue
        doc = inspect.getdoc(thing) or ""
        section = re.search(r"Parameters\n-+\n((?:\S.*\n|[ ].*\n|\n(?=\S.*\n(?!-)))*)", doc + "\n")
        named = re.findall(r"(?m)^(\w.*?|\*\w.*?)(?: :.*)?$", section[1]) if section else []
        missing = set(wanted) - {part.lstrip("*") for line in named for part in line.split(", ")}
        returns = inspect.isclass(thing) or signature.return_annotation in (None, "None") or "Returns\n---" in doc
        if missing or not returns:
            unsaid[name] = sorted(missing) or "no section Returns"
    assert not unsaid


def test_no_file_of_the_library_is_longer_than_three_hundred_lines():
    lengths = {name: len(path.read_text(encoding="utf-8").splitlines()) for name, path in MODULES.items()}
    assert {name: length for name, length in lengths.items() if length > 300} == {}
