"""The `search` block of a space: what settings are searched for, how, and how many are tried."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from search_spaces.rules import MOST, count, distinct, known_word, read_list, read_mapping
from twophase.config import is_finite
from twophase.errors import BadInput, unknown

GOALS: dict[str, str] = {
    "transition_step": "the primary transition, in steps",
    "transition_fraction": "the primary transition over the length of the run",
    "excess_octaves": "log2 of the control's transition over the primary's: how much sooner pushes stop to matter",
    "late_kernel_distance": "mean kernel distance among the checkpoints of the run's second half",
    "test_accuracy": "mean test accuracy of the references",
    "test_loss": "mean test loss of the references",
}
"""What can be a goal, or be bounded, each with its meaning."""

KERNEL_GOALS = ("late_kernel_distance",)
DIRECTIONS = ("minimize", "maximize")
SAMPLERS: dict[str, str] = {
    "tpe": "tree-structured Parzen estimators (Bergstra et al. 2011), leaves taken together",
    "gp": "a Gaussian process; dearer to ask, for fewer settings",
    "nsga2": "an evolutionary algorithm, for several goals",
    "qmc": "a quasi-random sequence (Sobol), blind to what was found",
    "random": "independent draws, blind to what was found",
    "grid": "every combination once; all axes must be lists",
}
"""Samplers by name, each with what it is."""
NUM_SETTINGS = 30
PRUNERS: dict[str, str] = {
    "none": "every setting is run with all its seeds",
    "halving": "after 1, 2, 4, … seeds a setting goes on only if it is in the better half of those that got so far: "
    "asynchronous successive halving (Li et al. 2020, arXiv:1810.05934), whose resource is the number of seeds",
}
"""Ways to stop hopeless settings early, each with what it does."""


@dataclass(frozen=True)
class Goal:
    """What is sought: a name of `GOALS`, and ``minimize`` or ``maximize``."""

    name: str
    direction: str


@dataclass(frozen=True)
class Constraint:
    """A bound that a setting must keep to count.

    Attributes:
        name: A name of `GOALS`.
        bound: The bound.
        sign: 1 for at most, -1 for at least.
    """

    name: str
    bound: float
    sign: int

    def violation(self, value: float) -> float:
        """How far a value is beyond the bound; at most 0 if it keeps it."""
        return self.sign * (value - self.bound)

    def __str__(self) -> str:
        return f"{self.name} {'<=' if self.sign > 0 else '>='} {self.bound:g}"


@dataclass(frozen=True)
class Search:
    """What a search wants.

    Attributes:
        goals: What is sought; several make a Pareto front.
        constraints: Bounds.
        sampler: Name of the sampler.
        num_settings: Settings to try in all, those of earlier runs included.
        sampler_seed: Seed of the proposals.
        pruner: Name of what stops hopeless settings early.
    """

    goals: tuple[Goal, ...]
    constraints: tuple[Constraint, ...]
    sampler: str
    num_settings: int
    sampler_seed: int
    pruner: str = "none"


def read_search(raw: Any) -> Search:
    """Check the block and give it its types.

    Raises:
        BadInput: A key is unknown or a value breaks a rule.
    """
    given = read_mapping("search", raw)
    if "goals" not in given:
        raise BadInput("search.goals must be given, such as [{goal: transition_step, direction: minimize}]")
    goals = [_goal(entry) for entry in read_list("search.goals", given["goals"])]
    distinct("search.goals", [goal.name for goal in goals])
    listed = given.get("constraints") or []
    constraints = [_constraint(entry) for entry in (read_list("search.constraints", listed) if listed else [])]
    pruner = known_word("search.pruner", given.get("pruner", "none"), PRUNERS)
    if pruner != "none" and len(goals) > 1:
        raise BadInput(f"search.pruner must be 'none' with several goals, got {pruner!r}; settings are ranked by one")
    return Search(
        tuple(goals),
        tuple(constraints),
        known_word("search.sampler", given.get("sampler", "tpe"), SAMPLERS),
        count("search.num_settings", given.get("num_settings", NUM_SETTINGS), least=1, most=MOST),
        count("search.seed", given.get("seed", 0), least=0, most=2**32 - 1),
        pruner,
    )


def _goal(entry: Any) -> Goal:
    given = _entry("search.goals", entry, ("goal", "direction"), "{goal: transition_step, direction: minimize}")
    if set(given) != {"goal", "direction"}:
        raise BadInput(f"search.goals must hold goal and direction, got {dict(given)!r}")
    name = known_word("goal", given["goal"], GOALS)
    return Goal(name, known_word("search.goals.direction", given["direction"], DIRECTIONS))


def _constraint(entry: Any) -> Constraint:
    example = "{goal: test_accuracy, at_least: 0.7}"
    given = _entry("search.constraints", entry, ("goal", "at_least", "at_most"), example)
    bounds = [key for key in ("at_least", "at_most") if key in given]
    if "goal" not in given or len(bounds) != 1:
        raise BadInput(f"search.constraints must hold goal and one of at_least and at_most, got {dict(given)!r}")
    bound = given[bounds[0]]
    if isinstance(bound, bool) or not isinstance(bound, int | float) or not is_finite(bound):
        raise BadInput(f"search.constraints.{bounds[0]} must be a number, got {bound!r}")
    return Constraint(known_word("goal", given["goal"], GOALS), float(bound), 1 if bounds[0] == "at_most" else -1)


def _entry(field: str, entry: Any, keys: tuple[str, ...], example: str) -> Mapping[str, Any]:
    if not isinstance(entry, Mapping):
        raise BadInput(f"{field} must hold mappings such as {example}, got {entry!r}")
    for key in entry:
        if key not in keys:
            raise unknown(f"key in {field}", key, keys)
    return entry
