"""The `switch` block of a space: from which steps a copy of the reference is trained on linearised."""

from dataclasses import dataclass
from typing import Any

from search_spaces.rules import read_mapping, spaced_steps, within_run
from twophase.cone import checkpoint_steps
from twophase.config import Setting
from twophase.data import DATA
from twophase.models.custom_rules import check_switch

NUM_LOG = NUM_LINEAR = 6


@dataclass(frozen=True)
class Switch:
    """Which linearised runs a study wants.

    Attributes:
        is_wanted: Whether there are any; false where the space has no `switch` block.
        steps: Switch steps as listed; None for `num_log` and `num_linear` ones over each setting's run.
        num_log: Log-spaced steps.
        num_linear: Linear-spaced steps.
    """

    is_wanted: bool = False
    steps: tuple[int, ...] | None = None
    num_log: int = NUM_LOG
    num_linear: int = NUM_LINEAR

    def steps_of(self, setting: Setting) -> frozenset[int]:
        """Switch steps in a run of a setting; the end, which stands for the unswitched run, is always one."""
        if not self.is_wanted:
            return frozenset()
        steps = self.steps or checkpoint_steps(setting.num_steps, self.num_log, self.num_linear)
        return frozenset({*steps, setting.num_steps})

    def check(self, setting: Setting) -> None:
        """Hold steps and model against a setting.

        Raises:
            BadInput: A step lies past the end, or a module of one's own can't be linearised.
        """
        if not self.is_wanted:
            return
        within_run("switch.steps", self.steps or (), setting)
        if setting.model == "custom":
            source = DATA[setting.data]
            check_switch(setting.build, source.input_shape, source.num_classes)


def read_switch(raw: Any) -> Switch:
    """Check the block and give it its types; a space without one wants no linearised runs.

    Raises:
        BadInput: A key is unknown or a value breaks a rule.
    """
    if raw is None:
        return Switch()
    spaced = read_mapping("switch", raw).get("steps")
    return Switch(True, *spaced_steps("switch.steps", spaced, NUM_LOG, NUM_LINEAR))
