"""The `cone` block of a space: which kernels of the reference are taken, on how many inputs, and when."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from search_spaces.rules import MOST, count, distinct, known_word, listed_steps, read_list, read_mapping
from twophase.cone import checkpoint_steps
from twophase.config import MOST_EXAMPLES, MOST_SEED, Protocol, Setting
from twophase.errors import BadInput
from twophase.kernel import KINDS

NUM_LOG = NUM_LINEAR = 12


@dataclass(frozen=True)
class Cone:
    """What kernels a study wants.

    Attributes:
        kernels: Kinds, keys of `twophase.kernel.KINDS`; none where the space has no `cone` block.
        steps: Steps as listed; None for `num_log` and `num_linear` ones over each setting's run.
        num_log: Log-spaced steps.
        num_linear: Linear-spaced steps.
        probe_size: Inputs that kernels are computed on.
        probe_seed: Seed of their choice.
    """

    kernels: tuple[str, ...] = ()
    steps: tuple[int, ...] | None = None
    num_log: int = NUM_LOG
    num_linear: int = NUM_LINEAR
    probe_size: int = Protocol.probe_size
    probe_seed: int = Protocol.probe_seed

    def kernel_steps(self, setting: Setting) -> dict[str, tuple[int, ...]]:
        """Kind of kernel -> steps at which it is taken in a run of a setting."""
        if not self.kernels:
            return {}
        steps = self.steps or checkpoint_steps(setting.num_steps, self.num_log, self.num_linear)
        return dict.fromkeys(self.kernels, steps)

    def check(self, setting: Setting) -> None:
        """Hold steps and probe set against a setting.

        Raises:
            BadInput: A step lies past the end, or the training set is smaller than the probe set.
        """
        if not self.kernels:
            return
        late = [step for step in self.steps or () if step > setting.num_steps]
        if late:
            raise BadInput(
                f"cone.steps must not pass num_steps ({setting.num_steps} for model '{setting.model}'), got {late[0]}"
            )
        if self.probe_size > setting.num_train:
            raise BadInput(
                f"cone.probe_size must be <= num_train ({setting.num_train} for data '{setting.data}'), "
                f"got {self.probe_size}"
            )


def read_cone(raw: Any) -> Cone:
    """Check the block and give it its types; a space without one wants no kernels.

    Raises:
        BadInput: A key is unknown or a value breaks a rule.
    """
    if raw is None:
        return Cone()
    given = read_mapping("cone", raw)
    kernels = read_list("cone.kernel", given.get("kernel", "full"), is_one_allowed=True)
    kernels = [known_word("kernel", kind, KINDS) for kind in kernels]
    spaced = given.get("steps", {})
    listed = None if isinstance(spaced, Mapping) or spaced is None else listed_steps("cone.steps", spaced)
    numbers = read_mapping("cone.steps", spaced) if listed is None else {}
    return Cone(
        kernels=distinct("cone.kernel", kernels),
        steps=listed,
        num_log=count("cone.steps.num_log", numbers.get("num_log", NUM_LOG), least=0, most=MOST),
        num_linear=count("cone.steps.num_linear", numbers.get("num_linear", NUM_LINEAR), least=1, most=MOST),
        probe_size=count("cone.probe_size", given.get("probe_size", Protocol.probe_size), least=2, most=MOST_EXAMPLES),
        probe_seed=count("cone.probe_seed", given.get("probe_seed", Protocol.probe_seed), least=0, most=MOST_SEED),
    )
