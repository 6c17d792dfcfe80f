"""How a repair is said: every sentence here describes an edit that has already been shown to mend the gradients."""

from __future__ import annotations

import ast

from rnnlab.diagnosis.edits import Edit


def sentence(edit: Edit) -> str:
    """What was wrong with the line, seen from the edit that mends it."""
    old = edit.old if isinstance(edit.old, ast.AST) else None
    term, kind = edit.term, edit.kind
    if kind == "missing factor":
        return f"A factor is missing: {term}{_idiom(term)}."
    if kind == "missing term":
        return f"A term of the sum is missing: {term}."
    if kind == "scale":
        return f"The value has to be multiplied by {term}."
    if kind == "sign":
        return "The sign is wrong."
    if kind == "+= for =":
        return "The value is overwritten each time: it has to be added to what is there, with += in place of =."
    if kind == "= for +=":
        return "The value is added to what is there already: it has to replace it, with = in place of +=."
    if kind == "in place":
        return "The line changes an array in place that is used elsewhere too: make a new array."
    if kind == "argument":
        return f"The function changes its argument {term} in place, and the caller's array with it: copy it first."
    if kind == "branch":
        return "The branch is not always taken: its lines have to run every time."
    if kind == "missing update":
        return f"What is carried to the next pass of the loop is not updated: `{term}` is missing at the loop's end."
    if kind == "line to remove":
        clipped = (
            "The gradient is clipped here, so it is no longer the derivative. Clip after the check."
            if _clips(old)
            else "Without this line every gradient is right."
        )
        return clipped
    if kind == "transpose":
        return f"{term} has to be transposed."
    if kind == "brackets":
        return "The brackets stand in the wrong place, so a factor reaches the wrong terms."
    if kind == "index" and isinstance(edit.new, ast.Call):
        return "The loop leaves out a step, the first or the last one, or goes through them in the wrong order."
    if kind == "index":
        return "The index is wrong: it reads another step or entry, or the loop skips one."
    if kind == "exchanged":
        return f"{' and '.join(term.split('|'))} are exchanged."
    if kind == "option":
        return "The sum or mean is taken over the wrong axis, or does not belong here."
    if kind == "operator" and not isinstance(edit.new, ast.UnaryOp):
        return f"The operation in `{term}` is another one."
    if kind == "activation":
        name, text = term.split("|")
        return f"The activation is another one: {name} belongs to `{text}`."
    if kind == "operator" and isinstance(edit.new, ast.UnaryOp):
        return "The sign is wrong."
    if kind == "left out":
        return _left_out(edit)
    new = ast.unparse(edit.new) if isinstance(edit.new, ast.AST) else term
    if "|" in term:
        new = term.split("|")[0]
        return f"`{new}` is meant where `{term.split('|')[1]}` stands."
    again = (
        " (the activation is applied to a value that has gone through it already)"
        if isinstance(old, ast.Call) and _idiom(new)
        else ""
    )
    return f"`{new}`{_idiom(new)} is meant where `{ast.unparse(old) if old else ''}` stands{again}."


def _left_out(edit: Edit) -> str:
    """What the edit took away was too much."""
    old, new = edit.old, ast.unparse(edit.new)
    if isinstance(old, ast.BinOp) and isinstance(old.right, ast.Constant) and isinstance(old.op, ast.Add | ast.Sub):
        return f"The index is wrong: `{ast.unparse(old)}` is a neighbouring step or entry, and `{new}` is meant."
    if isinstance(old, ast.BinOp):
        gone = ast.unparse(old.right if ast.dump(old.left) == ast.dump(edit.new) else old.left)
        name = "factor" if isinstance(old.op, ast.Mult | ast.Div | ast.MatMult) else "term"
        scaled = ": the gradient is scaled" if isinstance(old.op, ast.Div) else ""
        clipped = ". The gradient is clipped here, so it is no longer the derivative" if _clips(old) else ""
        return f"A {name} is too many, {gone}{scaled}{clipped}."
    if isinstance(old, ast.Call):
        if _clips(old):
            return "The gradient is clipped here, so it is no longer the derivative. Clip after the check."
        return f"`{ast.unparse(old.func)}` should not be applied to {new}."
    if isinstance(old, ast.Attribute):
        return f"{new} should not be transposed."
    if isinstance(old, ast.UnaryOp):
        return "The sign is wrong."
    if isinstance(old, ast.Subscript):
        return f"Only a part of {new} is used: `{ast.unparse(old)}`."
    return f"`{new}` alone is meant where `{ast.unparse(old)}` stands."


def _idiom(term: str) -> str:
    """The name of a derivative that everybody knows."""
    found = []
    tree = ast.parse(term, mode="eval").body
    for node in ast.walk(tree):
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Sub) and ast.unparse(node.left) == "1":
            right = node.right
            if isinstance(right, ast.BinOp) and isinstance(right.op, ast.Pow):
                found.append("tanh")
            elif f"{ast.unparse(right)} * (1 - {ast.unparse(right)})" in ast.unparse(tree):
                found.append("the sigmoid")
        if isinstance(node, ast.Compare):
            found.append("a ReLU")
    return f", the derivative of {found[0]}" if found else ""


def _clips(node: ast.AST | None) -> bool:
    if node is None:
        return False
    calls = [n.func for n in ast.walk(node) if isinstance(n, ast.Call)]
    names = {f.attr if isinstance(f, ast.Attribute) else getattr(f, "id", "") for f in calls}
    return any("clip" in name or "norm" in name for name in names) or bool(names & {"minimum", "maximum"})
