"""The `chaos` block of a space: which children, measured when, judged by what."""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from search_spaces.refine import DEFAULT_START, Refine, read_refine
from search_spaces.rules import MOST, count, distinct, known_word, positive, read_list, read_mapping, truth
from twophase.alignment import check_alignable
from twophase.chaos import INDICATORS
from twophase.config import MOST_EXAMPLES, Protocol, Setting
from twophase.errors import BadInput
from twophase.experiment import Child
from twophase.perturb import ORDER
from twophase.perturbation import check_setting, parse
from twophase.schedules import ENDS_AT_ZERO

DEFAULT_FORK_STEPS = (0, 5, 10, 25, 50, 100, 200, 400, 800)
LEAST_SINGLE = 1e-6
"""Relative magnitude below which a push of float32 parameters is mostly rounded away (their unit roundoff is 6e-8)."""
_MEASURE = re.compile(r"end|(?P<plus>\+?)(?P<steps>[0-9]{1,15})|(?P<epochs>[0-9]{1,9}(\.[0-9]{1,9})?)ep")


@dataclass(frozen=True)
class Primary:
    """The headline, declared before running; without a magnitude it is at the largest of the study's first run."""

    indicator: str = "test_barrier"
    threshold: float = INDICATORS["test_barrier"]
    magnitude: float | None = None


@dataclass(frozen=True)
class Chaos:
    """What is done to each reference.

    Attributes:
        perturbations: Perturbations in their canonical form; the first is the primary's.
        fork_steps: Steps to fork at, ascending; None for the default grid below each setting's end.
        refine: How far each seed's bracket is narrowed from there; None to leave it at the grid.
        magnitudes: Sizes of the push, descending; 0 alone where no perturbation has one.
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
    refine: Refine | None = None
    magnitudes: tuple[float, ...] = (1e-2, 1e-4)
    num_directions: int = 2
    controls: int = 1
    measure_steps: tuple[str, ...] = ("end",)
    primary: Primary = Primary()
    window: int = 0
    is_primary_named: bool = False
    protocol: Protocol = Protocol()

    @property
    def primary_magnitude(self) -> float:
        """The magnitude that the headline is at, by what this space says."""
        return max(self.magnitudes) if self.primary.magnitude is None else self.primary.magnitude

    def forks(self, setting: Setting) -> tuple[int, ...]:
        """The fork steps of every seed of a setting; where brackets are refined, those to start from."""
        usual = DEFAULT_START if self.refine else DEFAULT_FORK_STEPS
        return self.fork_steps or tuple(step for step in usual if step < setting.num_steps)

    def children(self, setting: Setting) -> dict[Child, tuple[int, ...]]:
        """List a setting's children and controls with their absolute measure steps."""
        listed = {}
        for fork in self.forks(setting):
            steps = self.absolute_steps(setting, fork)
            kinds = [
                Child(fork, kind, magnitude, direction)
                for kind in self.perturbations
                for magnitude in (self.magnitudes if parse(kind).has_magnitude else (0.0,))
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
        """Hold fork and measure steps against a setting's end, and perturbations against its model.

        Raises:
            BadInput: One lies at or past it, or a perturbation or alignment doesn't go with its model.
        """
        for kind in self.perturbations:
            check_setting(kind, setting)
        end = setting.num_steps
        each = len(self.perturbations) * len(self.magnitudes) * self.num_directions + self.controls
        num_children = each * (len(self.fork_steps or DEFAULT_FORK_STEPS) + (self.refine.most if self.refine else 0))
        if num_children > MOST:
            raise BadInput(f"chaos must make at most {MOST:,} children of a trial, got {num_children:,}; ask for fewer")
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


def caution(chaos: Chaos, precisions: Collection[str]) -> str:
    """Say in a line which magnitudes the precisions of a study can't carry; empty if there is none."""
    small = [size for size in chaos.magnitudes if size < LEAST_SINGLE]
    coarse = sorted(set(precisions) - {"float64"})
    if not small or not coarse or not any(parse(kind).is_relative for kind in chaos.perturbations):
        return ""
    written = ", ".join(f"{size:g}" for size in small)
    return (
        f"chaos.magnitudes {written}: below {LEAST_SINGLE:g} much of a push is rounded away in {', '.join(coarse)}; "
        "use precision: float64"
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
    kinds = _perturbations(given.get("perturbation", list(defaults.perturbations)))
    forks, refine = _fork_steps(given.get("fork_steps"))
    magnitudes = read_list("chaos.magnitudes", given.get("magnitudes", list(defaults.magnitudes)), is_one_allowed=True)
    sizes = [positive("chaos.magnitudes", size) for size in magnitudes]
    window = count("chaos.window", given.get("window", 0), least=0)
    return Chaos(
        perturbations=kinds,
        fork_steps=forks,
        refine=refine,
        magnitudes=_magnitudes(distinct("chaos.magnitudes", sizes), kinds),
        num_directions=count(
            "chaos.num_directions", given.get("num_directions", defaults.num_directions), least=1, most=MOST
        ),
        controls=count("chaos.controls", given.get("controls", defaults.controls), least=0, most=MOST),
        measure_steps=_measures(given, window),
        window=window,
        primary=_primary(given.get("primary", {})),
        is_primary_named=bool(given.get("primary")),
        protocol=Protocol(
            train_sample=count(
                "chaos.train_sample", given.get("train_sample", Protocol.train_sample), least=1, most=MOST_EXAMPLES
            ),
            path_points=count("chaos.path_points", given.get("path_points", Protocol.path_points), least=3, most=MOST),
            alignment=truth("chaos.alignment", given.get("alignment", Protocol.alignment)),
            sharpness=truth("chaos.sharpness", given.get("sharpness", Protocol.sharpness)),
        ),
    )


def _perturbations(raw: Any) -> tuple[str, ...]:
    listed = [raw] if isinstance(raw, Mapping) else read_list("chaos.perturbation", raw, is_one_allowed=True)
    asked = [parse(entry) for entry in listed]
    if not asked[0].has_magnitude and any(entry.has_magnitude for entry in asked):
        raise BadInput(
            f"chaos.perturbation must begin with one that has a magnitude, for the first is the primary's, "
            f"got '{asked[0].text}'; list it later, or alone"
        )
    return distinct("chaos.perturbation", [entry.text for entry in asked])


def _magnitudes(sizes: tuple[float, ...], kinds: tuple[str, ...]) -> tuple[float, ...]:
    """Descending; a study of perturbations that have none has the one that their rows carry."""
    is_sized = any(parse(kind).has_magnitude for kind in kinds)
    return tuple(sorted(sizes, reverse=True)) if is_sized else (0.0,)


def _primary(raw: Any) -> Primary:
    given = read_mapping("chaos.primary", raw)
    indicator = known_word("indicator", given.get("indicator", Primary.indicator), INDICATORS)
    magnitude = given.get("magnitude")
    return Primary(
        indicator,
        positive("chaos.primary.threshold", given.get("threshold", INDICATORS[indicator])),
        None if magnitude is None else positive("chaos.primary.magnitude", magnitude),
    )


def _fork_steps(raw: Any) -> tuple[tuple[int, ...] | None, Refine | None]:
    if raw is None:
        return None, None
    if isinstance(raw, Mapping):
        return read_refine(raw)
    steps = read_list("chaos.fork_steps", raw, is_one_allowed=True)
    checked = [count("chaos.fork_steps", step, least=0) for step in steps]
    return tuple(sorted(distinct("chaos.fork_steps", checked))), None


def _measures(given: Mapping[str, Any], window: int) -> tuple[str, ...]:
    if not window:
        return _measure_steps(given.get("measure_steps", list(Chaos.measure_steps)))
    if "measure_steps" in given:
        raise BadInput(
            f"chaos must have window or measure_steps, not both; got {window} and {given['measure_steps']!r}"
        )
    return (f"+{window}",)


def _measure_steps(raw: Any) -> tuple[str, ...]:
    steps = read_list("chaos.measure_steps", raw, is_one_allowed=True)
    return distinct("chaos.measure_steps", [_canonical_measure(str(step)) for step in steps])


def _canonical_measure(text: str) -> str:
    """A measure step in the one way of writing it: ``1`` for ``01``, ``80ep`` for ``80.0ep``."""
    found = _MEASURE.fullmatch(text)
    written = found.groupdict() if found else {}
    number = written.get("steps") or written.get("epochs")
    if found is None or (number and float(number) == 0):
        raise BadInput(f"chaos.measure_steps must hold 'end', steps > 0, '+n' or epochs as '80ep', got {text!r}")
    if written["steps"]:
        return f"{written['plus']}{int(written['steps'])}"
    return f"{float(written['epochs']):.15g}ep" if written["epochs"] else text
