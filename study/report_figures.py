"""Figures on the page: in groups, each as a link that holds it, with the place of every setting's panel."""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from study.panels import panel_setting
from study.picture import Picture
from study.run_facts import seed_words

GROUPS: dict[str, tuple[str, ...]] = {
    "Settings side by side": ("comparison", "forest", "overview", "trend", "agreement", "chaos_cone", "is_it_chaos"),
    "Chaos: do two runs part?": (
        *("barrier", "disagreement", "dissimilarity", "dose", "boundary", "heatmap", "divergence", "growth", "path"),
    ),
    "Cone: how kernels move": ("kernel", "cone"),
    "Linearised training": ("switch",),
    "The references": ("learning",),
}
"""Heading -> how the names of its figures begin; others come last."""

OTHERS = "Further figures"
MOST_VECTOR_BYTES = 600_000
"""A larger SVG is shown as PNG."""

MOST_FIGURE_BYTES = 12_000_000
"""All figures on one page; those past it are named with their files."""


@dataclass(frozen=True)
class Panel:
    """Where a setting's panel is in a figure, in percent of its width and height from the upper left."""

    anchor: str
    left: float
    top: float
    width: float
    height: float


@dataclass(frozen=True)
class Shown:
    """A figure as the page shows it; `link` is empty where there is no room for it."""

    name: str
    title: str
    caption: str
    alt: str
    link: str
    least_width: int
    panels: tuple[Panel, ...]


def shown_figures(made: Sequence[Picture], trials: pd.DataFrame) -> dict[str, list[Shown]]:
    """Prepare figures for the page.

    Args:
        made: The study's pictures.
        trials: The `trials` table, for how many seeds they rest on.

    Returns:
        Heading of a group -> its figures, groups in order, none empty.
    """
    seeds = seed_words(trials[trials["status"] != "failed"]) if len(trials) else ""
    groups: dict[str, list[Shown]] = {group: [] for group in (*GROUPS, OTHERS)}
    room = MOST_FIGURE_BYTES
    for picture in made:
        link = _link(picture)
        link = link if len(link) <= room else ""
        room -= len(link)
        groups[_group(picture.name)].append(_shown(picture, link, seeds))
    return {group: shown for group, shown in groups.items() if shown}


def figure_links(
    groups: Mapping[str, Sequence[Shown]], setting_keys: Sequence[str]
) -> dict[str, list[tuple[str, str]]]:
    """Where each setting's panels are: setting key -> name of a figure and the place to go to.

    A figure whose panels aren't those of settings is linked as a whole; one that has no room for a setting isn't.
    """
    links: dict[str, list[tuple[str, str]]] = {key: [] for key in setting_keys}
    for figure in (shown for group in groups.values() for shown in group if shown.link):
        anchors = {panel.anchor for panel in figure.panels}
        for key, found in links.items():
            own = _anchor(figure.name, key)
            if own in anchors or not anchors:
                found.append((figure.name.replace("_", " "), own if anchors else figure.name))
    return links


def num_undrawn(groups: Mapping[str, Sequence[Shown]], setting_keys: Sequence[str]) -> int:
    """Settings that some figure of panels doesn't draw, for want of room or of rows."""
    drawn = [
        sum(_anchor(shown.name, key) in {panel.anchor for panel in shown.panels} for key in setting_keys)
        for group in groups.values()
        for shown in group
        if shown.panels
    ]
    return len(setting_keys) - min(drawn, default=len(setting_keys))


def _shown(picture: Picture, link: str, seeds: str) -> Shown:
    caption = (
        f"{picture.caption} Seeds: {seeds}; intervals, where drawn, are of 95 % over seeds."
        if seeds
        else picture.caption
    )
    panels = tuple(_panels(picture)) if link else ()
    return Shown(picture.name, picture.title, caption, picture.alt, link, picture.least_width, panels)


def _group(name: str) -> str:
    return next((group for group, starts in GROUPS.items() if name.startswith(starts)), OTHERS)


def _link(picture: Picture) -> str:
    if len(picture.svg) <= MOST_VECTOR_BYTES:
        return picture.svg_link()
    return "data:image/png;base64," + base64.b64encode(picture.png()).decode()


def _anchor(name: str, setting_key: str) -> str:
    return f"{name}-{setting_key}"


def _panels(picture: Picture) -> list[Panel]:
    """The first panel of each setting."""
    figure = picture.figure
    found: dict[str, Panel] = {}
    for axes in figure.axes:
        anchor = _anchor(picture.name, key) if (key := panel_setting(axes)) else ""
        box = axes.get_tightbbox() if anchor and anchor not in found else None
        if box is not None:
            box = box.transformed(figure.transFigure.inverted())
            left, top, width, height = 100 * box.x0, 100 * (1 - box.y1), 100 * box.width, 100 * box.height
            found[anchor] = Panel(anchor, *(round(value, 2) for value in (left, top, width, height)))
    return list(found.values())
