"""Tables for notebooks, as HTML: the one place that cells, histories, reports and lessons make them in."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from html import escape


def html_table(head: Sequence[object], rows: Iterable[Sequence[object]], caption: str = "") -> str:
    """A table with a head: numbers stand right, words left, and 10^-3 gets a raised exponent."""
    above = "".join(f'<th scope="col"{_side(name)}>{_text(name)}</th>' for name in head)
    body = "".join(f"<tr>{''.join(f'<td{_side(value)}>{_text(value)}</td>' for value in row)}</tr>" for row in rows)
    title = f'<caption style="text-align:left">{_text(caption)}</caption>' if caption else ""
    return f"<table>{title}<thead><tr>{above}</tr></thead><tbody>{body}</tbody></table>"


def _side(value: object) -> str:
    number = re.fullmatch(r"([-+−<]?\.?\d|inf|nan).{0,12}", str(value))  # noqa: RUF001 - a minus sign
    return f' style="text-align:{"right" if number else "left"}"'


def _text(value: object) -> str:
    return re.sub(r"10\^([-+]?[\d.]+)", r"10<sup>\1</sup>", escape(str(value)))
