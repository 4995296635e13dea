"""Tables of the report: cells with what they are sorted by, apart from how a page shows them."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

MAX_ROWS = 500
"""Rows of a table on the page; the Parquet files have them all."""


@dataclass(frozen=True)
class Cell:
    """One cell.

    Attributes:
        text: What it shows.
        order: The number it is sorted by; None for its text.
        links: Words and the places on the page that they lead to, in place of the text.
        is_wide: Whether it may run over several lines.
        is_strong: Whether it is what the row is read for.
    """

    text: str
    order: float | None = None
    links: tuple[tuple[str, str], ...] = ()
    is_wide: bool = False
    is_strong: bool = False

    @property
    def order_text(self) -> str:
        """The number as JavaScript reads it."""
        if self.order is None:
            return ""
        return repr(float(self.order)).replace("inf", "Infinity").replace("nan", "NaN")


@dataclass(frozen=True)
class PageTable:
    """A table of the page.

    Attributes:
        name: Its id on the page.
        caption: What it shows.
        columns: Title of each column, with the title of the group that it stands in; "" for none.
        rows: Cells in order of the columns; the first names the row.
        num_left_out: Rows past `MAX_ROWS`.
    """

    name: str
    caption: str
    columns: tuple[tuple[str, str], ...]
    rows: list[list[Cell]]
    num_left_out: int = 0

    @property
    def groups(self) -> list[tuple[str, int]]:
        """Groups of neighbouring columns and how many each spans; a column without one is ("", 1)."""
        spans: list[tuple[str, int]] = []
        for _, group in self.columns:
            if group and spans and spans[-1][0] == group:
                spans[-1] = (group, spans[-1][1] + 1)
            else:
                spans.append((group, 1))
        return spans

    @property
    def is_grouped(self) -> bool:
        """Whether any column stands in a group."""
        return any(group for group, _ in self.groups)

    @property
    def spanned(self) -> list[tuple[str, int, int]]:
        """Title, how many columns it spans, and the number of its first column, of what the upper row of heads has."""
        found, first = [], 0
        for group, span in self.groups:
            found.append((group or self.columns[first][0], span if group else 0, first))
            first += span
        return found


def page_table(
    name: str, caption: str, columns: Sequence[str | tuple[str, str]], rows: Sequence[Sequence[Cell]]
) -> PageTable | None:
    """Put rows together, as many as a page has room for; None if there are none.

    Args:
        name: Its id on the page.
        caption: What it shows.
        columns: Titles, or titles with the group that they stand in.
        rows: Cells in order of the columns.
    """
    if not rows:
        return None
    titles = tuple((column, "") if isinstance(column, str) else column for column in columns)
    return PageTable(name, caption, titles, [list(row) for row in rows[:MAX_ROWS]], max(0, len(rows) - MAX_ROWS))


def number(value: float, form: str = ".3g", *, is_strong: bool = False) -> Cell:
    """A number; – where there is none, ∞ where it has no end."""
    value = float(value)
    if math.isnan(value):
        return Cell("–", value, is_strong=is_strong)
    return Cell("∞" if math.isinf(value) else format(value, form), value, is_strong=is_strong)


def interval(row: Mapping[str, Any], text: str, low: str = "ci_low") -> Cell:
    """An interval, sorted by its lower end."""
    return Cell(text or "–", float(row[low]))


def words(text: str) -> Cell:
    """A name of ours as a reader takes it."""
    return Cell(text.replace("_", " ") or "–")
