"""What a lesson puts on its page: figures with the same in words, and tables."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

from rnnlab.tables import html_table


def png(figure: Any, dpi: float) -> bytes:
    """The matplotlib figure as a picture on white, closed."""
    import matplotlib.pyplot as plt

    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi, facecolor="white", bbox_inches="tight")
    plt.close(figure)
    return buffer.getvalue()


def image(picture: bytes, alt: str, style: str = "") -> str:
    """A picture with its text, in HTML: of a plain PNG output JupyterLab and nbconvert would not show the text."""
    source = f"data:image/png;base64,{base64.b64encode(picture).decode()}"
    return f'<img src="{source}" alt="{escape(alt, quote=True)}" style="max-width:100%{style}">'


def show(alt: str) -> None:
    """Display the current figure, with a text for those who cannot see it, and close it."""
    import matplotlib.pyplot as plt

    figure = plt.gcf()
    _display("figure", image(png(figure, figure.dpi), alt))


def table(head: Sequence[object], rows: Iterable[Sequence[object]], caption: str = "") -> None:
    """Display a table."""
    _display("table", html_table(head, rows, caption))


def _display(what: str, page: str) -> None:
    """In the place of a folded output JupyterLab shows the first line of its HTML, as it is written."""
    from IPython.display import display

    display({"text/html": f"<!-- here a {what} is folded -->\n{page}", "text/plain": f"a {what}"}, raw=True)
