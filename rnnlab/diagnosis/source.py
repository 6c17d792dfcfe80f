"""The learner's functions as trees: which of them run, how they read, and how one runs in another wording."""

from __future__ import annotations

import ast
import contextlib
import copy
import gc
import inspect
import linecache
import sys
import sysconfig
import textwrap
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import CodeType, FrameType, FunctionType
from typing import Any

NOT_THE_LEARNERS = (
    str(Path(__file__).parents[1]),
    *(sysconfig.get_paths()[key] for key in ("stdlib", "purelib", "platlib")),
)


@dataclass
class Source:
    """One function whose source can be read.

    function   the function object itself; `running` gives it another code for a while
    within     where not all of it is meant: the first lines of the functions inside it that are
    tree       its definition, with the line numbers of its file
    statements every simple statement and every loop or branch (its first line), in the order of the text
    """

    function: FunctionType
    tree: ast.FunctionDef
    within: Sequence[int] = ()
    statements: list[ast.stmt] = field(default_factory=list)
    places: dict[int, tuple[ast.AST, str, int | None]] = field(default_factory=dict)  # a memory of `edits.slots`
    edits: dict[int, list[Any]] = field(default_factory=dict)  # and of `Search.edits`

    def __post_init__(self) -> None:
        self.changed()

    def changed(self) -> None:
        """What is remembered of the tree belongs to the tree as it is now."""
        self.places.clear()
        self.edits.clear()
        meant = [n for n in ast.walk(self.tree) if getattr(n, "lineno", 0) in self.within] or [self.tree]
        inside = {id(n): n for root in meant for n in ast.walk(root)}.values()
        every = [s for s in inside if isinstance(s, ast.stmt) and s is not self.tree]
        self.statements = [s for s in every if not (isinstance(s, ast.Expr) and ast.unparse(s) == f"{LIMIT}()")]
        self.statements.sort(key=lambda s: (s.lineno, s.col_offset))

    def where(self, statement: ast.stmt) -> tuple[str, int, str]:
        """Function, line and text of a statement, as the learner wrote it; of a loop or branch its first line."""
        written = linecache.getline(self.function.__code__.co_filename, statement.lineno)
        return self.function.__qualname__.rpartition("<locals>.")[2], statement.lineno, one_line(statement, written)

    def compiled(self, tree: ast.FunctionDef) -> CodeType:
        """The code of the function with another definition, which fits the same function object."""
        free = self.function.__code__.co_freevars
        body = copy.copy(tree)
        body.decorator_list = []
        module = ast.parse(f"def outer({', '.join(free)}):\n    pass")
        (outer,) = module.body
        assert isinstance(outer, ast.FunctionDef)
        if free:  # a name that an edit no longer uses must stay a free variable
            body.body = [*ast.parse("if 0:\n    " + ", ".join(free)).body, *body.body]
        outer.body = [body]
        code = compile(module, self.function.__code__.co_filename, "exec")
        for _ in range(2):
            code = next(c for c in code.co_consts if inspect.iscode(c))
        return code


LIMIT = "__rnnlab_limit__"
MOST_CALLS = 100_000  # in one run of edited code; in one expression of it a hundredth
MOST_PASSES = 2_000  # of `while` loops in one run of edited code, which may have lost what ends them


class _Limited(ast.NodeTransformer):
    """Every pass of a `while` loop asks whether there were too many."""

    def visit_While(self, node: ast.While) -> ast.While:
        self.generic_visit(node)
        node.body = [*ast.parse(f"{LIMIT}()").body, *node.body]
        return node


def _limit() -> Callable[[], None]:
    passes = iter(range(MOST_PASSES))

    def ask() -> None:
        if next(passes, None) is None:
            raise RuntimeError("the loop does not end")

    return ask


def one_line(statement: ast.stmt, written: str = "") -> str:
    """A statement on one line; its own wording where it was written on one line."""
    alone = copy.copy(statement)
    for part in ("body", "orelse"):
        if getattr(alone, part, None):
            setattr(alone, part, [])
    if hasattr(alone, "body"):
        alone.body = [ast.Expr(ast.Constant(...))]
    text = ast.unparse(alone).removesuffix("...").strip()
    with contextlib.suppress(SyntaxError, ValueError):
        stripped = written.strip()
        parsed = ast.parse(stripped + (" ..." if hasattr(alone, "body") else "")).body
        if len(parsed) == 1 and ast.dump(parsed[0]) == ast.dump(ast.parse(ast.unparse(alone)).body[0]):
            return stripped
    return text


def learners(codes: set[CodeType]) -> set[CodeType]:
    """Those outside the library and the installed packages whose text can be read."""
    return {c for c in codes if not c.co_filename.startswith(NOT_THE_LEARNERS) and _readable(c)}


@contextlib.contextmanager
def _watched(note: Callable[[FrameType, str, Any], None]) -> Iterator[None]:
    """Each call within is noted."""
    before = sys.getprofile()
    sys.setprofile(note)
    try:
        yield
    finally:
        sys.setprofile(before if callable(before) else None)


def executed(run: Callable[[], Any]) -> tuple[Any, set[CodeType]]:
    """What `run()` returns or raises, and the learner's codes that it ran."""
    codes: set[CodeType] = set()

    def note(frame: FrameType, event: str, _: Any) -> None:
        if event == "call":
            codes.add(frame.f_code)

    with _watched(note):
        try:
            result = run()
        except Exception as error:  # a learner's code may raise anything
            result = error
    return result, learners(codes)


def limited(most: int = MOST_CALLS) -> contextlib.AbstractContextManager[None]:
    """RuntimeError in code that makes too many calls: an edit may iterate over what has no end."""
    calls = iter(range(most))

    def note(*_: Any) -> None:
        if next(calls, None) is None:
            raise RuntimeError("too many calls")

    return _watched(note)


def _readable(code: CodeType) -> bool:
    return bool(linecache.getlines(code.co_filename)) and not code.co_name.startswith("<module")


def sources(codes: set[CodeType], makers: Iterable[CodeType] = ()) -> list[Source]:
    """The functions of these codes, those that stand inside another one with it.

    A closure that was made by one of `makers` is that part of its maker, which makes it anew in each run.
    """
    found: dict[tuple[str, int], Source] = {}
    functions = [f for f in gc.get_referrers(*codes) if isinstance(f, FunctionType) and f.__code__ in codes]
    meant: dict[FunctionType, set[int]] = {}
    for function in functions:
        maker = _maker(function)
        if maker.__code__ in codes or maker.__code__ not in set(makers):
            meant[function] = set()
        else:
            meant.setdefault(maker, set()).add(function.__code__.co_firstlineno)
    for function, within in meant.items():
        with contextlib.suppress(OSError, TypeError, SyntaxError, IndentationError):
            lines, first = inspect.getsourcelines(function.__code__)
            tree = _definition(ast.parse(textwrap.dedent("".join(lines))), function)
            ast.increment_lineno(tree, first - 1)
            source = Source(function, tree, sorted(within))
            ast.fix_missing_locations(_Limited().visit(tree))
            found[function.__code__.co_filename, function.__code__.co_firstlineno] = source
    inner = {
        key
        for key, s in found.items()
        for (file, line), outer in found.items()
        if file == key[0] and line < key[1] and (s.tree.end_lineno or 0) <= (outer.tree.end_lineno or 0)
    }
    return sorted((s for key, s in found.items() if key not in inner), key=lambda s: s.tree.lineno)


def _maker(function: FunctionType) -> FunctionType:
    """The function of a module or class in which this one is defined; itself where it is in none."""
    outer, *rest = function.__qualname__.partition(".<locals>")[0].split(".")
    thing = function.__globals__.get(outer)
    for name in rest:
        thing = getattr(thing, name, None)
    return thing if isinstance(thing, FunctionType) else function


def _definition(module: ast.Module, function: FunctionType) -> ast.FunctionDef:
    """The definition in the text; a lambda becomes a function with one `return`."""
    for node in ast.walk(module):
        if isinstance(node, ast.FunctionDef) and node.name == function.__name__:
            return node
    (node,) = (n for n in ast.walk(module) if isinstance(n, ast.Lambda))
    answer = ast.copy_location(ast.Return(node.body), node.body)
    made = ast.FunctionDef(name="<lambda>", args=node.args, body=[answer], decorator_list=[], returns=None)
    made.name = "lambda_"
    return ast.copy_location(made, node)


@contextlib.contextmanager
def running(codes: Sequence[tuple[Source, CodeType]], names: dict[str, Any] | None = None) -> Iterator[None]:
    """These functions run with other code, and with these names beside their globals, for a while."""
    before = [(s.function, s.function.__code__) for s, _ in codes]
    names = {LIMIT: _limit(), **(names or {})}
    try:
        for source, code in codes:
            source.function.__code__ = code
            source.function.__globals__.update(names)
        yield
    finally:
        for function, code in before:
            function.__code__ = code
            for name in names:
                function.__globals__.pop(name, None)


def shallow(node: ast.AST) -> ast.AST:
    """A copy of one node whose lists of children are its own, so that the original stays as it is."""
    twin = copy.copy(node)
    for name, value in ast.iter_fields(node):
        if isinstance(value, list):
            setattr(twin, name, list(value))
    return twin
