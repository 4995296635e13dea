"""The `chaos` block of a space: which children, measured when, judged by what."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from search_spaces.rules import MOST, count, distinct, known_word, positive, read_list, read_mapping, truth
from twophase.alignment import check_alignable
from twophase.chaos import INDICATORS
from twophase.config import Protocol, Setting
from twophase.errors import BadInput
from twophase.experiment import Child
from twophase.perturb import ORDER, PERTURBATIONS
from twophase.schedules import ENDS_AT_ZERO

DEFAULT_FORK_STEPS = (0, 5, 10, 25, 50, 100, 200, 400, 800)
_MEASURE = re.compile(r"end|\+?\d+|\d+(\.\d+)?ep")


@dataclass(frozen=True)
class Primary:
    """The headline, declared before running; without a magnitude it is at the largest run."""

    indicator: str = "test_barrier"
    threshold: float = INDICATORS["test_barrier"]
    magnitude: float | None = None


@dataclass(frozen=True)
class Chaos:
    """What is done to each reference.

    Attributes:
        perturbations: Kinds, keys of `PERTURBATIONS`; the first is the primary's.
        fork_steps: Steps to fork at, ascending; None for the default grid below each setting's end.
        magnitudes: Sizes of the push, descending.
        num_directions: Random draws per kind and fork step.
        controls: Children of another data order per fork step.
        measure_steps: As written: ``end``, ``+n``, ``80ep`` or a step as text.
        primary: The headline.
        window: Steps after its fork at which every child is compared, in place of `measure_steps`; 0 for none.
        is_primary_named: Whether the space said so itself.
        protocol: How barriers are measured.
    """

    perturbations: tuple[str, ...] = ("gaussian",)
    fork_steps: tuple[int, ...] | None = None
    magnitudes: tuple[float, ...] = (1e-2, 1e-4)
    num_directions: int = 2
    controls: int = 1
    measure_steps: tuple[str, ...] = ("end",)
    primary: Primary = Primary()
    window: int = 0
    is_primary_named: bool = False
    protocol: Protocol = Protocol()

    def children(self, setting: Setting) -> dict[Child, tuple[int, ...]]:
        """List a setting's children and controls with their absolute measure steps."""
        forks = self.fork_steps or tuple(step for step in DEFAULT_FORK_STEPS if step < setting.num_steps)
        listed = {}
        for fork in forks:
            steps = self.absolute_steps(setting, fork)
            kinds = [
                Child(fork, kind, magnitude, direction)
                for kind in self.perturbations
                for magnitude in self.magnitudes
                for direction in range(self.num_directions)
            ]
            orders = [Child(fork, ORDER, 0.0, number) for number in range(self.controls)]
            if steps:
                listed.update(dict.fromkeys([*kinds, *orders], steps))
        return listed

    def absolute_steps(self, setting: Setting, fork_step: int) -> tuple[int, ...]:
        """Measure steps of a fork; absolute ones at or before it are skipped."""
        return tuple(
            sorted({step for m in self.measure_steps if (step := measure_step(m, fork_step, setting)) > fork_step})
        )

    def check(self, setting: Setting) -> None:
        """Hold fork and measure steps against a setting's end.

        Raises:
            BadInput: One lies at or past it, or alignment is asked of a model whose symmetry isn't known.
        """
        end = setting.num_steps
        if self.protocol.alignment:
            check_alignable(setting)
        if self.window and setting.schedule in ENDS_AT_ZERO:
            raise BadInput(
                f"chaos.window must go with a schedule that doesn't end at 0, got {self.window} with schedule "
                f"'{setting.schedule}': its learning rate alone would quiet a late window; use schedule 'constant'"
            )
        for step in self.fork_steps or ():
            if step >= end:
                raise BadInput(
                    f"chaos.fork_steps must be below num_steps ({end} for model '{setting.model}'), got {step}"
                )
        for measure in self.measure_steps:
            for fork in self.fork_steps or (0,):
                step = measure_step(measure, fork, setting)
                if step > end:
                    where = f" after the fork at {fork}" if measure.startswith("+") else ""
                    raise BadInput(
                        f"chaos.measure_steps must not pass num_steps ({end} for model '{setting.model}'), "
                        f"got {measure!r}{where} = step {step}"
                    )
                if step == 0:
                    raise BadInput(f"chaos.measure_steps must come to at least step 1, got {measure!r} = step 0")
        if not self.children(setting):
            written = ", ".join(self.measure_steps)
            raise BadInput(
                f"chaos.measure_steps must have one after a fork step (model '{setting.model}', "
                f"first fork at {min(self.fork_steps or (0,))}), got {written}"
            )


def measure_step(measure: str, fork_step: int, setting: Setting) -> int:
    """Turn a measure step as written into an absolute step."""
    if measure == "end":
        return setting.num_steps
    if measure.startswith("+"):
        return fork_step + int(measure)
    if measure.endswith("ep"):
        return round(float(measure.removesuffix("ep")) * (setting.num_train // setting.batch_size))
    return int(measure)


def read_chaos(raw: Any) -> Chaos:
    """Check the block and give it its types.

    Raises:
        BadInput: A key is unknown or a value breaks a rule.
    """
    given = read_mapping("chaos", raw)
    defaults = Chaos()
    kinds = read_list(
        "chaos.perturbation", given.get("perturbation", list(defaults.perturbations)), is_one_allowed=True
    )
    kinds = [known_word("perturbation", kind, PERTURBATIONS) for kind in kinds]
    forks = given.get("fork_steps")
    magnitudes = read_list("chaos.magnitudes", given.get("magnitudes", list(defaults.magnitudes)), is_one_allowed=True)
    sizes = [positive("chaos.magnitudes", size) for size in magnitudes]
    window = count("chaos.window", given.get("window", 0), least=0)
    return Chaos(
        perturbations=distinct("chaos.perturbation", kinds),
        fork_steps=None if forks is None else _fork_steps(forks),
        magnitudes=tuple(sorted(distinct("chaos.magnitudes", sizes), reverse=True)),
        num_directions=count(
            "chaos.num_directions", given.get("num_directions", defaults.num_directions), least=1, most=MOST
        ),
        controls=count("chaos.controls", given.get("controls", defaults.controls), least=0, most=MOST),
        measure_steps=_measures(given, window),
        window=window,
        primary=_primary(given.get("primary", {})),
        is_primary_named=bool(given.get("primary")),
        protocol=Protocol(
            train_sample=count("chaos.train_sample", given.get("train_sample", Protocol.train_sample), least=1),
            path_points=count("chaos.path_points", given.get("path_points", Protocol.path_points), least=3, most=MOST),
            alignment=truth("chaos.alignment", given.get("alignment", Protocol.alignment)),
            sharpness=truth("chaos.sharpness", given.get("sharpness", Protocol.sharpness)),
        ),
    )


def _primary(raw: Any) -> Primary:
    given = read_mapping("chaos.primary", raw)
    indicator = known_word("indicator", given.get("indicator", Primary.indicator), INDICATORS)
    magnitude = given.get("magnitude")
    return Primary(
        indicator,
        positive("chaos.primary.threshold", given.get("threshold", INDICATORS[indicator])),
        None if magnitude is None else positive("chaos.primary.magnitude", magnitude),
    )


def _fork_steps(raw: Any) -> tuple[int, ...]:
    steps = read_list("chaos.fork_steps", raw, is_one_allowed=True)
    checked = [count("chaos.fork_steps", step, least=0) for step in steps]
    return tuple(sorted(distinct("chaos.fork_steps", checked)))


def _measures(given: Mapping[str, Any], window: int) -> tuple[str, ...]:
    if not window:
        return _measure_steps(given.get("measure_steps", list(Chaos.measure_steps)))
    if "measure_steps" in given:
        raise BadInput(
            f"chaos must have window or measure_steps, not both; got {window} and {given['measure_steps']!r}"
        )
    return (f"+{window}",)


def _measure_steps(raw: Any) -> tuple[str, ...]:
    texts = [str(step) for step in read_list("chaos.measure_steps", raw, is_one_allowed=True)]
    for text in texts:
        if not _MEASURE.fullmatch(text) or text in ("0", "+0"):
            raise BadInput(f"chaos.measure_steps must hold 'end', steps > 0, '+n' or epochs as '80ep', got {text!r}")
    return distinct("chaos.measure_steps", texts)
