"""Which figures a study gets, with what each shows in words."""

from collections.abc import Mapping, Sequence

import pandas as pd

from study import captions
from study.axes import MAGNITUDE
from study.boundary_plot import boundary_figure, boundary_words, primary_boundary
from study.comparing import Comparison
from study.cone_plots import angle_figure, cone_figure, velocity_figure
from study.confinements import setting_verdicts
from study.dose import dose_figure, dose_words, doses
from study.forest import forest_figure, forest_words
from study.heatmaps import INDICATORS, heatmap_figure, heatmap_words, measured_often
from study.kernel_drift import kernel_drift, verdict_words
from study.labels import setting_labels, varying_axes
from study.lag_plot import lag_figure, lag_words, lagged
from study.pair_plots import divergence_figure, divergence_words, path_figure, path_words
from study.picture import Picture
from study.plots import barrier_figure, kernel_estimate, kernel_figure, learning_figure, marked_estimate
from study.summary import records, step_text
from study.sweep_plots import agreement_figure, overview_figure, trend_figure, trend_words
from study.switch_plot import switch_figure, switch_words
from twophase.config import LEAVES

FIGURE_TABLES = ("trials", "chaos", "transitions", "cone", "confinement", "switch", "trajectory")
"""Tables that every study's figures are made from; those of `OPTIONAL_TABLES` may be missing or empty."""
OPTIONAL_TABLES = ("boundary", "divergence", "growth", "path")


def pictures(tables: Mapping[str, pd.DataFrame], courses: Comparison | None = None) -> list[Picture]:
    """Make the figures that a study's tables allow.

    Args:
        tables: Those of `FIGURE_TABLES`, and of `OPTIONAL_TABLES` any.
        courses: Trends over what was swept; see `study.comparing.all_trends`.

    Returns:
        The pictures, in the order in which they are read.
    """
    chaos, found, cone, trials = (tables[name] for name in ("chaos", "transitions", "cone", "trials"))
    axes = varying_axes(trials, list(LEAVES))
    made: list[Picture] = []
    if len(chaos):
        made += _curve_pictures(chaos, found, axes) + _forest_pictures(chaos, found, axes)
        made += _trend_pictures(courses, chaos, axes) + _agreement_pictures(found, trials, axes)
        made += _heatmap_pictures(chaos, found, axes) + _pair_pictures(tables, found, axes)
    if len(cone):
        made += _kernel_pictures(cone, found, tables["confinement"], axes) + _lag_pictures(cone, axes)
    return [*made, *_switch_pictures(tables["switch"], axes), *_learning_pictures(tables["trajectory"], axes)]


def _switch_pictures(switch: pd.DataFrame, axes: Sequence[str]) -> list[Picture]:
    if switch.empty:
        return []
    alt = f"Test accuracy at the end over switch step. {switch_words(switch, axes)}"
    figure = switch_figure(switch, axes)
    return [Picture("switch", "Linearised training from a switch step on", captions.SWITCHES, figure, alt)]


def _learning_pictures(trajectory: pd.DataFrame, axes: Sequence[str]) -> list[Picture]:
    if trajectory.empty:
        return []
    last = trajectory[trajectory["step"] == trajectory["num_steps"]].groupby("setting_key")["test_accuracy"].mean()
    labels = setting_labels(trajectory, axes)
    alt = "; ".join(f"{labels[str(key)]}: test accuracy {value:.2f} at the end" for key, value in last.items())
    figure = learning_figure(trajectory, axes)
    return [Picture("learning_curves", "Learning curves of the references", captions.LEARNING, figure, alt)]


def _trend_pictures(courses: Comparison | None, chaos: pd.DataFrame, axes: Sequence[str]) -> list[Picture]:
    """A figure per numeric axis with a fitted law; the magnitude's is the dose figure's."""
    made: list[Picture] = []
    if courses is None:
        return made
    for axis in (axis for axis in courses.axes if axis != MAGNITUDE):
        figure = trend_figure(courses, axis, chaos, axes)
        if figure is not None:
            rows = courses.trends
            row = records(rows[(rows["axis"] == axis) & (rows["unit"] == "steps")])[0]
            title = f"Transition over {axis.replace('_', ' ')}"
            made.append(Picture(f"trend_{axis}", title, captions.TREND, figure, f"{title}. {trend_words(row)}"))
    return made


def _agreement_pictures(found: pd.DataFrame, trials: pd.DataFrame, axes: Sequence[str]) -> list[Picture]:
    """Chaos against cone, where kernels were followed and something was located."""
    figure = agreement_figure(found, trials, axes)
    if figure is None:
        return []
    title = "Do chaos and cone agree?"
    alt = f"Kernel's transition over the barrier's. {figure.axes[0].get_title()}"
    return [Picture("agreement", title, captions.AGREEMENT, figure, alt)]


def _heatmap_pictures(chaos: pd.DataFrame, found: pd.DataFrame, axes: Sequence[str]) -> list[Picture]:
    """Dissimilarity, barrier and disagreement over fork step and measure step, where several were compared."""
    made, rows = [], measured_often(chaos, found)
    for indicator, name in INDICATORS.items():
        figure = heatmap_figure(chaos, found, axes, indicator)
        if figure is not None:
            words = f"{name[0].upper()}{name[1:]} over fork and measure step"
            alt = f"{words}. {heatmap_words(rows, indicator, setting_labels(chaos, axes))}"
            made.append(Picture(f"heatmap_{indicator}", words, captions.HEATMAP, figure, alt))
    return made


def _pair_pictures(tables: Mapping[str, pd.DataFrame], found: pd.DataFrame, axes: Sequence[str]) -> list[Picture]:
    """Boundary, divergence and loss along the path, of the tables that are there."""
    chaos, made = tables["chaos"], []
    boundary, divergence, path, growth = (
        tables.get(name, pd.DataFrame()) for name in ("boundary", "divergence", "path", "growth")
    )
    if len(boundary) and len(rows := primary_boundary(boundary, found)):
        sizes = sorted(set(chaos.loc[chaos["perturbation"].isin(rows["perturbation"]), "magnitude"]))
        figure = boundary_figure(boundary, found, sizes, axes)
        if figure is not None:
            alt = f"Critical magnitude over fork step. {boundary_words(rows, setting_labels(rows, axes))}"
            made.append(Picture("boundary", "How large must a push be?", captions.BOUNDARY, figure, alt))
    if len(divergence):
        growth = growth if len(growth) else pd.DataFrame(columns=["setting_key", "fork_step", "growth_rate", "window"])
        figure = divergence_figure(divergence, growth, found, axes)
        words = divergence_words(divergence, found, setting_labels(divergence, axes))
        alt = f"Distance to the reference since the fork. {words}"
        made.append(Picture("divergence", "How children part", captions.DIVERGENCE, figure, alt))
    if len(path):
        alt = f"Test loss between reference and child. {path_words(path, found, setting_labels(path, axes))}"
        made.append(Picture("path", "Loss along the path", captions.PATHS, path_figure(path, found, axes), alt))
    return made


def _lag_pictures(cone: pd.DataFrame, axes: Sequence[str]) -> list[Picture]:
    """Kernel distance at some lags, where enough checkpoints are equally far apart."""
    rows, figure = lagged(cone), lag_figure(cone, axes)
    if figure is None:
        return []
    alt = f"Kernel distance at some lags. {lag_words(rows, setting_labels(cone, axes))}"
    return [Picture("kernel_lag", "Kernel distance some steps apart", captions.LAGS, figure, alt)]


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
        (
            "kernel_distance",
            "Kernel distance between checkpoints",
            captions.KERNELS,
            kernel_figure(cone, found, axes),
            moves,
        ),
    ]
    if confinement["p_walk"].notna().any():  # with fewer checkpoints there is too little to see
        figures += [
            (
                "kernel_velocity",
                "Velocity of the kernel",
                captions.VELOCITIES,
                velocity_figure(cone, found, axes),
                breaks,
            ),
            (
                "kernel_angle",
                "Angle to the kernel at some steps",
                captions.ANGLES,
                angle_figure(cone, confinement, axes),
                stays,
            ),
            ("kernel_cone", "Kernels in space", captions.CONE, cone_figure(cone, confinement, axes), stays),
        ]
    return [Picture(name, title, caption, figure, "; ".join(alt)) for name, title, caption, figure, alt in figures]


def _curve_pictures(chaos: pd.DataFrame, found: pd.DataFrame, axes: Sequence[str]) -> list[Picture]:
    """The primary indicator, and disagreement, over the fork step."""
    headline = found[found["is_primary"]]
    primary = str(headline["indicator"].iloc[0]) if len(headline) else "test_barrier"
    made = [_curve_picture(chaos, found, axes, primary, "barrier")]
    small = overview_figure(chaos, found, axes, primary)
    if small is not None:
        alt = f"{primary.replace('_', ' ').capitalize()} over fork step, every setting. {made[0].alt}"
        made.append(Picture("overview", "All settings at a glance", captions.OVERVIEW, small, alt))
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
    return [Picture("comparison", "Comparison", captions.FOREST, figure, alt)]


def _dose_pictures(chaos: pd.DataFrame, found: pd.DataFrame, axes: Sequence[str], indicator: str) -> list[Picture]:
    """The primary indicator over the magnitude, where several were run."""
    shown, figure = doses(chaos, found, indicator), dose_figure(chaos, found, axes, indicator)
    if shown is None or figure is None:
        return []
    words = indicator.replace("_", " ").capitalize()
    alt = f"{words} over magnitude. {dose_words(shown, dict(setting_labels(chaos, axes)))}"
    return [Picture("dose", f"{words} over the magnitude of the push", captions.DOSES, figure, alt)]


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
    return Picture(name, f"{words} over fork step", captions.CURVES, figure, f"{words} over fork step. {alt}")
