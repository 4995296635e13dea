"""What was run, in words: settings, axes, seeds, steps, children, counts, and what computed it."""

from collections.abc import Mapping

import pandas as pd

from study.labels import part
from study.manifest import Declared
from study.protocols import protocol_words
from study.status import Status
from twophase.config import LEAVES
from twophase.perturb import NONE, ORDER

MOST_LEVELS = 12


def run_facts(tables: Mapping[str, pd.DataFrame], declared: Declared, status: Status) -> dict[str, str]:
    """Say what was run.

    Args:
        tables: The study's tables.
        declared: Its declarations.
        status: How far it is.

    Returns:
        Name -> words, in the order in which they are read; what a study doesn't have is left out.
    """
    trials = tables["trials"]
    if trials.empty:
        return {"Trials": _trial_words(trials, status)}
    facts = {
        "Trials": _trial_words(trials, status),
        "Settings": str(trials["setting_key"].nunique()),
        "Swept": "; ".join(f"{axis.replace('_', ' ')}: {_levels(trials[axis])}" for axis in _swept(trials)),
        "Held": ", ".join(part(leaf, trials[leaf].iloc[0]) for leaf in _held(trials)),
        "Seeds": seed_words(trials),
        "Steps": _levels(trials["num_steps"]),
        "Children": _child_words(tables["chaos"], declared),
        "Kernels": _kernel_words(tables["cone"]),
        "Growth": _growth_words(tables["growth"]),
        "Linearised from": _switch_words(tables["switch"]),
        "Measured with": " · ".join(map(protocol_words, sorted(set(trials["protocol"])))),
    }
    return {name: text for name, text in facts.items() if text}


def computed_facts(trials: pd.DataFrame) -> dict[str, str]:
    """Say what computed the trials, and what their sentinels prove."""
    if trials.empty:
        return {}
    computed = trials[trials["status"] != "failed"]
    exact = int(computed["is_sentinel_exact"].sum())
    columns = ("twophase_version", "torch_version", "python_version", "device", "device_name", "num_threads")
    names = ("twophase", "torch", "Python", "Device", "Hardware", "Threads")
    return {
        "Sentinels bitwise equal to their reference": f"{exact} of {len(computed)} trials",
        "Lane-steps": f"{int(trials['lane_steps'].sum()):,}",
        "Time in trials": f"{trials['wall_seconds'].sum():,.0f} s",
        **{name: _levels(computed[column]) or "–" for name, column in zip(names, columns, strict=True)},
    }


def seed_words(rows: pd.DataFrame) -> str:
    """How many seeds a setting has, e.g. ``3 a setting`` or ``2 to 3 a setting``."""
    counts = rows.groupby("setting_key")["seed"].nunique()
    if counts.empty:
        return ""
    low, high = counts.min(), counts.max()
    return f"{low} a setting" if low == high else f"{low} to {high} a setting"


def _trial_words(trials: pd.DataFrame, status: Status) -> str:
    counts = status.counts()
    diverged = int((trials["status"] == "diverged").sum()) if len(trials) else 0
    parts = [
        f"{counts['done']} of {counts['trials']} trials done",
        f"{counts['failed']} failed",
        f"{diverged} diverged",
    ]
    parts += [
        f"{counts[name]} {word}" for name, word in (("running", "running"), ("planned", "waiting")) if counts[name]
    ]
    return f"{', '.join(parts)}; {counts['children']:,} children, {counts['lane_steps']:,} lane-steps"


def _swept(trials: pd.DataFrame) -> list[str]:
    return [leaf for leaf in LEAVES if leaf in trials and trials[leaf].nunique() > 1]


def _held(trials: pd.DataFrame) -> list[str]:
    """Leaves of one value, where it is one that says something."""
    one = [leaf for leaf in LEAVES if trials[leaf].nunique() == 1]
    return [
        leaf for leaf in one if leaf not in ("num_steps", "build_digest") and trials[leaf].iloc[0] not in ("none", 0)
    ]


def _child_words(chaos: pd.DataFrame, declared: Declared) -> str:
    pushes = chaos[~chaos["perturbation"].isin([NONE, ORDER])]
    controls = chaos[chaos["perturbation"] == ORDER]
    if pushes.empty and controls.empty:
        return ""
    parts = [
        f"{_levels(pushes['perturbation'])} of magnitude {_levels(pushes['magnitude'])}",
        f"{pushes['direction'].nunique()} directions a seed" if pushes["direction"].nunique() > 1 else "",
        f"forked at steps {_levels(chaos.loc[chaos['perturbation'] != NONE, 'fork_step'])}",
        f"compared at {', '.join(declared.measures)}",
        f"controls (another data order): {controls['direction'].nunique()} a fork step"
        if len(controls)
        else "no controls",
    ]
    return "; ".join(filter(None, parts))


def _kernel_words(cone: pd.DataFrame) -> str:
    if cone.empty:
        return ""
    steps = cone.groupby(["setting_key", "kernel"])["step_i"].nunique()
    low, high = steps.min(), steps.max()
    many = f"{low}" if low == high else f"{low} to {high}"
    return f"{_levels(cone['kernel'])}; {many} checkpoints a run"


def _growth_words(growth: pd.DataFrame) -> str:
    if growth.empty:
        return ""
    return f"windows of {_levels(growth['window'])} steps from steps {_levels(growth['fork_step'])} on"


def _switch_words(switch: pd.DataFrame) -> str:
    steps = switch.loc[switch["switch_step"] < switch["num_steps"], "switch_step"]
    return f"steps {_levels(steps)} on, and never" if len(steps) else ""


def _levels(column: pd.Series) -> str:
    """The values of a column, ascending; of many the first and how many there are."""
    values = sorted(set(column))
    shown = [f"{value:g}" if isinstance(value, float) else str(value) for value in values[:MOST_LEVELS]]
    more = f", … ({len(values)} in all)" if len(values) > MOST_LEVELS else ""
    return ", ".join(shown) + more
