"""The `switch` block of a space: from which steps a copy of the reference is trained on linearised."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from search_spaces.rules import MOST, count, listed_steps, read_mapping
from twophase.cone import checkpoint_steps
from twophase.config import Setting
from twophase.data import DATA
from twophase.errors import BadInput
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
        late = [step for step in self.steps or () if step > setting.num_steps]
        if late:
            raise BadInput(
                f"switch.steps must not pass num_steps ({setting.num_steps} for model '{setting.model}'), got {late[0]}"
            )
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
    spaced = read_mapping("switch", raw).get("steps", {})
    listed = None if isinstance(spaced, Mapping) or spaced is None else listed_steps("switch.steps", spaced)
    numbers = read_mapping("switch.steps", spaced) if listed is None else {}
    return Switch(
        True,
        listed,
        num_log=count("switch.steps.num_log", numbers.get("num_log", NUM_LOG), least=0, most=MOST),
        num_linear=count("switch.steps.num_linear", numbers.get("num_linear", NUM_LINEAR), least=1, most=MOST),
    )
