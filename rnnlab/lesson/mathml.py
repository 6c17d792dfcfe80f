"""The equations of a page as MathML, which a browser draws itself: such a page needs no script and no network."""

from __future__ import annotations

import re
from typing import Any

from math_core import LatexToMathML
from nbconvert.preprocessors import Preprocessor

_CODE_OR_TEX = re.compile(r"(`+).+?\1|\$\$(?P<block>.+?)\$\$|\$(?P<line>[^$\n]+)\$", re.DOTALL)
_CONVERTER = LatexToMathML()


def mathml(text: str) -> str:
    """The text with each `$...$` and `$$...$$` outside of code turned into MathML.

    Raises math_core.LatexError for a command that it does not know.
    """

    def turn(found: re.Match[str]) -> str:
        tex = found["block"] or found["line"]
        return _CONVERTER.convert_with_local_state(tex, displaystyle=bool(found["block"])) if tex else found[0]

    return _CODE_OR_TEX.sub(turn, text)


class MathML(Preprocessor):
    """What the template `rnnlab` of nbconvert does to a notebook before it makes a page of it."""

    def preprocess_cell(self, cell: Any, resources: Any, index: int) -> tuple[Any, Any]:
        """Turn the equations of one cell's text, or of its outputs."""
        if cell.cell_type == "markdown":
            cell.source = mathml(cell.source)
        for output in cell.get("outputs", ()):
            if "text/latex" in output.get("data", {}):
                output.data["text/html"] = mathml(output.data.pop("text/latex"))
        return cell, resources
