"""A slider over figures drawn beforehand: it works in a saved page, without a kernel, and live with ipywidgets."""

from __future__ import annotations

import html
from collections.abc import Callable, Sequence
from typing import Any
from uuid import uuid4

from rnnlab.lesson.page import image, png


class Knob:
    """`draw(value)` returns axes; every value of `values` is drawn once, and the slider changes the picture.

    The values are numbers or words. Shown in a notebook or a page made from one, it is plain HTML. `live()`
    returns an ipywidgets slider that draws anew. `alt(value)` says in words what the picture of that value shows.
    """

    def __init__(
        self, draw: Callable[[Any], Any], values: Sequence[float | str], label: str, alt: Callable[[Any], str]
    ) -> None:
        self.draw, self.values, self.label = draw, list(values), label
        self.words = [value if isinstance(value, str) else f"{value:g}" for value in values]
        self.frames = [self._picture(value) for value in self.values]
        self.alts = [alt(value) for value in self.values]

    def _picture(self, value: float | str) -> bytes:
        return png(self.draw(value).figure, dpi=100)

    def _repr_html_(self) -> str:
        """All frames stacked, one of them shown; a slider of the browser's own shows another."""
        name = f"knob-{uuid4().hex[:8]}"
        show = (
            f"var n=+this.value,k=this.closest('.{name}');"
            "k.querySelectorAll('img').forEach(function(i,m){i.style.display=m==n?'block':'none'});"
            f"k.querySelector('output').textContent={self.words}[n]"
        )
        frames = "".join(
            image(frame, alt, f";display:{'none' if n else 'block'}")
            for n, (frame, alt) in enumerate(zip(self.frames, self.alts, strict=True))
        )
        slider = (
            f'<input type="range" min="0" max="{len(self.frames) - 1}" value="0" step="1" style="width:20em" '
            f'oninput="{html.escape(show, quote=True)}">'
        )
        text = f"{html.escape(self.label)} {slider} <output>{self.words[0]}</output>"
        return f'<div class="{name}"><label style="font-size:110%">{text}</label>{frames}</div>'

    def live(self) -> Any:
        """An ipywidgets slider that draws each value anew. Raises ImportError without ipywidgets."""
        import ipywidgets

        pairs = list(zip(self.words, self.values, strict=True))
        slider = ipywidgets.SelectionSlider(options=pairs, description=self.label)
        picture = ipywidgets.Image(value=self.frames[0], format="png")
        slider.observe(lambda change: setattr(picture, "value", self._picture(change["new"])), names="value")
        return ipywidgets.VBox([slider, picture])
