"""What a lesson puts on its page: figures that are told in words as well, and tables."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rnnlab.tables import html_table


def show(alt: str) -> None:
    """Display the current figure, with a text for those who cannot see it, and close it."""
    import matplotlib.pyplot as plt
    from IPython.display import display

    figure = plt.gcf()
    display(figure, metadata={"image/png": {"alt": alt}})
    plt.close(figure)


def table(head: Sequence[object], rows: Iterable[Sequence[object]], caption: str = "") -> None:
    """Display a table."""
    from IPython.display import HTML, display

    display(HTML(html_table(head, rows, caption)))
