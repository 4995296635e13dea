"""A figure beside its words, and its files."""

import base64
import io
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure

import results
from results.files import write_bytes
from results.places import ensure_folder


@dataclass(frozen=True)
class Picture:
    """A figure beside its words.

    Attributes:
        name: Name of its files.
        title: Its heading.
        caption: What is drawn.
        figure: The figure.
        alt: The same in words, for who can't see it.
    """

    name: str
    title: str
    caption: str
    figure: Figure
    alt: str

    @cached_property
    def svg(self) -> bytes:
        """The figure as SVG, the same bytes for the same figure."""
        stream = io.BytesIO()
        with mpl.rc_context({"svg.hashsalt": self.name}):
            self._settled.savefig(stream, format="svg", metadata={"Date": None})
        return stream.getvalue()

    def png(self) -> bytes:
        """The figure as PNG."""
        stream = io.BytesIO()
        self._settled.savefig(stream, format="png", dpi=150)
        return stream.getvalue()

    @cached_property
    def _settled(self) -> Figure:
        """The figure laid out once: every format would else be laid out anew, which takes most of its time."""
        if engine := self.figure.get_layout_engine():
            engine.execute(self.figure)
        self.figure.set_layout_engine("none")
        return self.figure

    @property
    def least_width(self) -> int:
        """Pixels below which it can't be read: a narrower page scrolls it."""
        return round(PIXELS_PER_INCH * float(self.figure.get_size_inches()[0]))

    def svg_link(self) -> str:
        """The SVG as a link that holds it."""
        return "data:image/svg+xml;base64," + base64.b64encode(self.svg).decode()


PIXELS_PER_INCH = 76
"""At least: letters of 9 points are then 9.5 pixels."""


def save(study: results.Study, made: list[Picture]) -> list[Path]:
    """Write pictures to the study's folder, as PNG and SVG; each file is whole or not there.

    Returns:
        The PNG files.
    """
    folder = study.path / "figures"
    ensure_folder(folder)
    for picture in made:
        write_bytes(folder / f"{picture.name}.svg", picture.svg)
        write_bytes(folder / f"{picture.name}.png", picture.png())
    return [folder / f"{picture.name}.png" for picture in made]
