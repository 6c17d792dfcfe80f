"""The sentence of each repair, that is, of an edit that has already been shown to mend the gradients."""

from __future__ import annotations

import ast

from rnnlab.diagnosis.edits import Edit

SAID = {
    "missing term": "A term of the sum is missing: {term}.",
    "scale": "The value has to be scaled: {term}.",
    "sign": "The sign is wrong.",
    "+= for =": "The value is overwritten each time: it has to be added to what is there, with += in place of =.",
    "= for +=": "The value is added to what is there already: it has to replace it, with = in place of +=.",
    "repeated index": "Where a number stands in {term} twice, += adds only one of the two: np.add.at adds each.",
    "in place": "The line changes an array in place that is used elsewhere too: make a new array.",
    "argument": "The function changes its argument {term} in place, and the caller's array with it: copy it first.",
    "branch": "The branch is not always taken: its lines have to run every time.",
    "missing update": "What is carried to the next pass of the loop is not updated: `{term}` is missing at its end.",
    "missing line": "A line is missing: `{term}`.",
    "transpose": "{term} has to be transposed.",
    "brackets": "The brackets stand in the wrong place, so a factor reaches the wrong terms.",
    "index": "The index is wrong: it reads another step or entry, or the loop skips one.",
    "exchanged": "{term} are exchanged.",
    "slope of a tanh": "{term} comes out of a tanh: its derivative is 1 - {term}**2, not the sigmoid's.",
    "slope of a sigmoid": "{term} comes out of a sigmoid: its derivative is {term} * (1 - {term}), not the tanh's.",
    "option": "The sum or mean is taken over the wrong axis, or does not belong here.",
}
CLIPPED = "The gradient is clipped here, so it is no longer the derivative. Clip after the check."


def sentence(edit: Edit) -> str:
    """What was wrong with the line, seen from the edit that mends it."""
    old, term, kind, new = edit.node, edit.term, edit.kind, edit.text
    if kind == "missing factor":
        return f"A factor is missing: {term}{_idiom(term)}."
    if kind == "line to remove":
        return CLIPPED if _clips(old) else "Without this line every gradient is right."
    if kind == "index" and isinstance(old, ast.Call):
        return "The loop leaves out a step, the first or the last one, or goes through them in the wrong order."
    if kind == "left out":
        return _left_out(old, ast.unparse(ast.parse(new)))
    if kind in SAID:
        told = SAID[kind].format(term=term)
        through_a_row = kind == "missing term" and "axis=-1" in term
        return f"{told} That is the path through the mean or the norm of a row." if through_a_row else told
    new = ast.unparse(ast.parse(new))
    if kind == "operator" and isinstance(old, ast.BinOp):
        return f"The operation in `{term}` is another one."
    again = " (the activation is applied to a value that has gone through it already)"
    again = again if isinstance(old, ast.Call) and _idiom(new) else ""
    return f"`{new}`{_idiom(new)} is meant where `{term}` stands{again}."


def _left_out(old: ast.AST, new: str) -> str:
    """What the edit took away was too much."""
    if isinstance(old, ast.Call) and _clips(old):
        return CLIPPED
    if isinstance(old, ast.BinOp) and ast.unparse(old.left) == "1" and isinstance(old.op, ast.Sub):
        return f"`{new}` is meant where `{ast.unparse(old)}` stands."
    if isinstance(old, ast.BinOp):
        if isinstance(old.right, ast.Constant) and isinstance(old.op, ast.Add | ast.Sub):
            return f"The index is wrong: `{ast.unparse(old)}` is a neighbouring step or entry, and `{new}` is meant."
        gone = old.right if ast.unparse(old.left) == new else old.left
        name = "factor" if isinstance(old.op, ast.Mult | ast.Div | ast.MatMult) else "term"
        scaled = ": the gradient is scaled" if isinstance(old.op, ast.Div) else ""
        return f"A {name} is too many, {ast.unparse(gone)}{scaled}." + f" {CLIPPED}" * _clips(gone)
    if isinstance(old, ast.Call):
        return f"`{ast.unparse(old.func)}` should not be applied to {new}."
    if isinstance(old, ast.Attribute):
        return f"{new} should not be transposed."
    if isinstance(old, ast.UnaryOp):
        return SAID["sign"]
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


def _clips(node: ast.AST) -> bool:
    calls = [n.func for n in ast.walk(node) if isinstance(n, ast.Call)]
    names = {f.attr if isinstance(f, ast.Attribute) else getattr(f, "id", "") for f in calls}
    return any("clip" in name or "norm" in name for name in names) or bool(names & {"minimum", "maximum"})
