"""Which figures a study gets, with what each shows in words, and their files."""

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import matplotlib as mpl
import pandas as pd
from matplotlib.figure import Figure

import results
from results.files import write_bytes
from results.places import ensure_folder
from study.cone_plots import angle_figure, cone_figure, velocity_figure
from study.confinements import setting_verdicts
from study.dose import dose_figure, dose_words, doses
from study.forest import forest_figure, forest_words
from study.kernel_drift import kernel_drift, verdict_words
from study.labels import setting_labels, varying_axes
from study.plots import barrier_figure, kernel_estimate, kernel_figure, learning_figure, marked_estimate
from study.summary import records, step_text
from study.switch_plot import switch_figure, switch_words
from twophase.config import LEAVES


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
            self.figure.savefig(stream, format="svg", metadata={"Date": None})
        return stream.getvalue()

    def png(self) -> bytes:
        """The figure as PNG."""
        stream = io.BytesIO()
        self.figure.savefig(stream, format="png", dpi=150)
        return stream.getvalue()

    @property
    def least_width(self) -> int:
        """Pixels below which it can't be read: a narrower page scrolls it."""
        return round(PIXELS_PER_INCH * float(self.figure.get_size_inches()[0]))

    def svg_link(self) -> str:
        """The SVG as a link that holds it."""
        return "data:image/svg+xml;base64," + base64.b64encode(self.svg).decode()


PIXELS_PER_INCH = 76
"""At least: letters of 9 points are then 9.5 pixels."""

CURVES = (
    "Thin lines are seeds (means over directions), thick ones their mean; grey, dashed: controls, not perturbed but "
    "given another data order from the fork on; crosses: a child that diverged. Dotted: the threshold. Vertical line "
    "and band: the transition and its interval."
)
DOSES = (
    "Each line is one fork step, a mean over seeds, against the magnitude of the push; the shade about the first is "
    "its seeds' range. Diamonds at the right: controls of the same fork step, not perturbed but given another data "
    "order, with their range; grey: the first fork step's control and its range, as far as two runs can part "
    "from there. Dotted: the threshold. A line that is flat below its control doesn't care how small the push is."
)
FOREST = (
    "Points are transitions, medians over seeds, with their 95 % intervals; grey: controls, not perturbed but given "
    "another data order from the fork on. An open arrow: the interval has no end, as past the last fork step nothing "
    "was seen. Where there is no transition, the verdict stands in its place."
)
KERNELS = (
    "S = 1 − cosine between the kernels of two checkpoints, mean over seeds; checkpoints are evenly spaced whatever "
    "their steps. Dashed: the transition of the barrier's figure; solid: the kernel's own, where its velocity breaks. "
    "Grey: not finite."
)
VELOCITIES = (
    "Angle between the kernels of neighbouring checkpoints over the gap in steps, a line per seed; hollow: gaps in "
    "which the learning rate is below a tenth of its greatest, left out of the test. Diamonds: a seed's own break; "
    "line and band: the kernel's transition and its interval, where located. Where kernels jitter, a longer gap alone "
    "makes the velocity smaller: a bend where log-spaced checkpoints become linear-spaced is no break, and isn't taken "
    "for one."
)
ANGLES = (
    "Angle between the kernel at τ and later ones, mean over seeds, shaded their range. Dotted: what random walks of "
    "the same steps do on average, in any dimension. Verdicts are those of more than half the seeds."
)
CONE = (
    "Kernels divided by their norms, of one seed, from dark (first) to bright (last), with the smallest cone about the "
    "origin that holds those from a quarter of the run on. Upwards: its axis; across: principal components, so that a "
    "kernel may lie farther from the axis than it looks."
)
LEARNING = (
    "Left axis: train loss on the fixed sample and test loss. Right axis, dashed: test accuracy. A line per seed."
)

SWITCHES = (
    "Test accuracy and test loss at the end of a run whose network is replaced by its first-order expansion at the "
    "switch step and trained on as before. Thin lines are seeds, thick ones their mean, the shade the mean's 95 % "
    "interval (Student's t over seeds). Dashed, with its own shade: the run that never switched; its batch-norm "
    "statistics run on, while those of an expansion are recomputed at its switch and stay. Crosses: a linearised run "
    "that diverged."
)


def pictures(tables: Mapping[str, pd.DataFrame]) -> list[Picture]:
    """Make the figures that a study's tables allow.

    Args:
        tables: `trials`, `chaos`, `transitions`, `cone`, `confinement`, `switch` and `trajectory`.

    Returns:
        The pictures, in the order in which they are read.
    """
    chaos, found, cone, trajectory = (tables[name] for name in ("chaos", "transitions", "cone", "trajectory"))
    axes = varying_axes(tables["trials"], list(LEAVES))
    made = _curve_pictures(chaos, found, axes) if len(chaos) else []
    made += _forest_pictures(chaos, found, axes) if len(chaos) else []
    if len(cone):
        made += _kernel_pictures(cone, found, tables["confinement"], axes)
    switch = tables["switch"]
    if len(switch):
        alt = f"Test accuracy at the end over switch step. {switch_words(switch, axes)}"
        figure = switch_figure(switch, axes)
        made.append(Picture("switch", "Linearised training from a switch step on", SWITCHES, figure, alt))
    if len(trajectory):
        last = trajectory[trajectory["step"] == trajectory["num_steps"]].groupby("setting_key")["test_accuracy"].mean()
        labels = setting_labels(trajectory, axes)
        alt = "; ".join(f"{labels[str(key)]}: test accuracy {value:.2f} at the end" for key, value in last.items())
        figure = learning_figure(trajectory, axes)
        made.append(Picture("learning_curves", "Learning curves of the references", LEARNING, figure, alt))
    return made


def _kernel_pictures(
    cone: pd.DataFrame, found: pd.DataFrame, confinement: pd.DataFrame, axes: Sequence[str]
) -> list[Picture]:
    """Distances between checkpoints; where kernels could be tested, velocity, angle to some steps, and a cone."""
    labels, verdicts = setting_labels(cone, axes), setting_verdicts(confinement)
    moves, breaks, stays = [], [], []
    for row in records(kernel_drift(cone)):
        who = f"{labels[row['setting_key']]}, {row['kernel']} kernel"
        moves.append(f"{who}: {row['words']}")
        own = kernel_estimate(found, row["setting_key"], row["kernel"])
        at = "" if own is None or own["verdict"] != "located" else f" at step {step_text(own['transition_step'])}"
        breaks.append(f"{who}: {'not estimated' if own is None else own['reason']}{at}")
        words = verdict_words(verdicts, row["setting_key"], row["kernel"])
        stays.append(f"{who}: {words or 'too few checkpoints for a verdict'}")
    figures = [
        ("kernel_distance", "Kernel distance between checkpoints", KERNELS, kernel_figure(cone, found, axes), moves),
    ]
    if confinement["p_walk"].notna().any():  # with fewer checkpoints there is too little to see
        figures += [
            ("kernel_velocity", "Velocity of the kernel", VELOCITIES, velocity_figure(cone, found, axes), breaks),
            ("kernel_angle", "Angle to the kernel at some steps", ANGLES, angle_figure(cone, confinement, axes), stays),
            ("kernel_cone", "Kernels in space", CONE, cone_figure(cone, confinement, axes), stays),
        ]
    return [Picture(name, title, caption, figure, "; ".join(alt)) for name, title, caption, figure, alt in figures]


def _curve_pictures(chaos: pd.DataFrame, found: pd.DataFrame, axes: Sequence[str]) -> list[Picture]:
    """The primary indicator, and disagreement, over the fork step."""
    headline = found[found["is_primary"]]
    primary = str(headline["indicator"].iloc[0]) if len(headline) else "test_barrier"
    made = [_curve_picture(chaos, found, axes, primary, "barrier")]
    made += _dose_pictures(chaos, found, axes, primary)
    if primary != "disagreement":
        made.append(_curve_picture(chaos, found, axes, "disagreement", "disagreement"))
    return made


def _forest_pictures(chaos: pd.DataFrame, found: pd.DataFrame, axes: Sequence[str]) -> list[Picture]:
    """All settings' transitions side by side, where there are two or more."""
    figure = forest_figure(found, chaos, axes, float(chaos["fork_step"].max()))
    if figure is None:
        return []
    alt = f"Transitions of all settings. {forest_words(found, dict(setting_labels(chaos, axes)))}"
    return [Picture("comparison", "Comparison", FOREST, figure, alt)]


def _dose_pictures(chaos: pd.DataFrame, found: pd.DataFrame, axes: Sequence[str], indicator: str) -> list[Picture]:
    """The primary indicator over the magnitude, where several were run."""
    shown, figure = doses(chaos, found, indicator), dose_figure(chaos, found, axes, indicator)
    if shown is None or figure is None:
        return []
    words = indicator.replace("_", " ").capitalize()
    alt = f"{words} over magnitude. {dose_words(shown, dict(setting_labels(chaos, axes)))}"
    return [Picture("dose", f"{words} over the magnitude of the push", DOSES, figure, alt)]


def _curve_picture(chaos: pd.DataFrame, found: pd.DataFrame, axes: Sequence[str], indicator: str, name: str) -> Picture:
    words = indicator.replace("_", " ").capitalize()
    labels = setting_labels(chaos, axes)
    rows = {key: marked_estimate(found, str(key), indicator) for key in labels.index}
    alt = "; ".join(
        f"{labels[key]}: {str(row['verdict']).replace('_', ' ')}, step {step_text(row['transition_step'])}"
        for key, row in rows.items()
        if row is not None
    )
    figure = barrier_figure(chaos, found, axes, indicator)
    return Picture(name, f"{words} over fork step", CURVES, figure, f"{words} over fork step. {alt}")


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
