"""The `growth` block of a space: from where, for how long and how small perturbations of the reference are followed."""

from dataclasses import dataclass, replace
from typing import Any

from search_spaces.chaos_block import DEFAULT_FORK_STEPS
from search_spaces.rules import MOST, count, distinct, positive, read_list, read_mapping
from twophase.config import MOST_STEPS, Protocol, Setting
from twophase.data import DATA
from twophase.errors import BadInput
from twophase.models.custom_rules import check_growth
from twophase.update_map import RULES

LEAST_APART = 10.0
LEAST_MAGNITUDE = 1e-10
"""Below it, float64 itself is too coarse: its rounding is 1e-16 of a weight."""


@dataclass(frozen=True)
class Growth:
    """Which windows a study wants.

    Attributes:
        num_directions: Random draws per fork step; 0 where the space has no `growth` block.
        fork_steps: Steps at which windows begin, ascending; None for the default grid where a window fits.
        protocol: Length, burn-in and magnitudes, and no other field.
    """

    num_directions: int = 0
    fork_steps: tuple[int, ...] | None = None
    protocol: Protocol = Protocol()

    def windows(self, setting: Setting) -> frozenset[tuple[int, int]]:
        """(fork step, direction) of every window in a run of a setting."""
        last = setting.num_steps - self.protocol.growth_window
        forks = (
            tuple(step for step in DEFAULT_FORK_STEPS if step <= last) if self.fork_steps is None else self.fork_steps
        )
        return frozenset((step, direction) for step in forks for direction in range(self.num_directions))

    def check(self, setting: Setting) -> None:
        """Hold windows and optimiser against a setting.

        Raises:
            BadInput: A window passes the end, none fits, or optimiser or module can't be linearised.
        """
        if not self.num_directions:
            return
        if setting.model == "custom":
            source = DATA[setting.data]
            check_growth(setting.build, source.input_shape, source.num_classes)
        window, end = self.protocol.growth_window, setting.num_steps
        late = [step for step in self.fork_steps or (0,) if step + window > end]
        if late:
            raise BadInput(
                f"growth.fork_steps plus growth.window ({window}) must not pass num_steps ({end} for model "
                f"'{setting.model}'), got {late[0]} + {window} = {late[0] + window}"
            )
        num_windows = self.num_directions * len(self.fork_steps or DEFAULT_FORK_STEPS)
        if num_windows > MOST:
            raise BadInput(f"growth must have at most {MOST:,} windows in a trial, got {num_windows:,}; ask for fewer")
        if setting.optimizer not in RULES:
            known = ", ".join(sorted(RULES))
            raise BadInput(f"growth must go with an optimizer whose rule it knows ({known}), got '{setting.optimizer}'")

    def added_to(self, protocol: Protocol) -> Protocol:
        """Put its fields into a protocol."""
        own = self.protocol
        return replace(
            protocol,
            growth_window=own.growth_window,
            growth_burn_in=own.growth_burn_in,
            growth_low=own.growth_low,
            growth_high=own.growth_high,
        )


def read_growth(raw: Any) -> Growth:
    """Check the block and give it its types; a space without one wants no growth.

    Raises:
        BadInput: A key is unknown or a value breaks a rule.
    """
    if raw is None:
        return Growth()
    given = read_mapping("growth", raw)
    window = count("growth.window", given.get("window", Protocol.growth_window), least=1, most=MOST_STEPS)
    burn_in = count("growth.burn_in", given.get("burn_in", min(Protocol.growth_burn_in, window - 1)), least=0)
    if burn_in >= window:
        raise BadInput(f"growth.burn_in must be below growth.window ({window}), got {burn_in}")
    low, high = _magnitudes(given.get("magnitudes", [Protocol.growth_low, Protocol.growth_high]))
    return Growth(
        num_directions=count("growth.num_directions", given.get("num_directions", 1), least=1, most=MOST),
        fork_steps=_fork_steps(given.get("fork_steps")),
        protocol=Protocol(growth_window=window, growth_burn_in=burn_in, growth_low=low, growth_high=high),
    )


def _fork_steps(raw: Any) -> tuple[int, ...] | None:
    if raw is None:
        return None
    steps = read_list("growth.fork_steps", raw, is_one_allowed=True)
    checked = [count("growth.fork_steps", step, least=0) for step in steps]
    return tuple(sorted(distinct("growth.fork_steps", checked)))


def _magnitudes(raw: Any) -> tuple[float, float]:
    sizes = sorted(positive("growth.magnitudes", size) for size in read_list("growth.magnitudes", raw))
    if len(sizes) != 2 or sizes[1] < LEAST_APART * sizes[0]:
        raise BadInput(f"growth.magnitudes must be two, at least tenfold apart, got {raw!r}")
    if sizes[0] < LEAST_MAGNITUDE:
        raise BadInput(f"growth.magnitudes must be >= {LEAST_MAGNITUDE:g}, got {sizes[0]:g}")
    return sizes[0], sizes[1]
