"""The `cone` block of a space: which kernels are taken, on how many inputs, when, and what is kept of them."""

from dataclasses import dataclass
from typing import Any

from search_spaces.chaos_block import Chaos
from search_spaces.rules import count, distinct, known_word, read_list, read_mapping, spaced_steps, within_run
from twophase.children import SENTINEL, Child, Sketched
from twophase.cone import checkpoint_steps
from twophase.config import MOST_EXAMPLES, MOST_SEED, Protocol, Setting
from twophase.errors import BadInput
from twophase.kernel import KINDS
from twophase.perturb import ORDER

NUM_LOG = NUM_LINEAR = 12
LEAST_SKETCH, MOST_SKETCH = 16, 1 << 20


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
        sketch: Bins of the sketch that every kernel leaves; 0 for none.
        children: Fork steps of children whose kernels are sketched too; None for those of all children.
    """

    kernels: tuple[str, ...] = ()
    steps: tuple[int, ...] | None = None
    num_log: int = NUM_LOG
    num_linear: int = NUM_LINEAR
    probe_size: int = Protocol.probe_size
    probe_seed: int = Protocol.probe_seed
    sketch: int = 0
    children: tuple[int, ...] | None = ()

    def kernel_steps(self, setting: Setting) -> dict[str, tuple[int, ...]]:
        """Kind of kernel -> steps at which it is taken in a run of a setting."""
        if not self.kernels:
            return {}
        steps = self.steps or checkpoint_steps(setting.num_steps, self.num_log, self.num_linear)
        return dict.fromkeys(self.kernels, steps)

    def sketch_steps(self, setting: Setting, chaos: Chaos) -> dict[Sketched, tuple[int, ...]]:
        """Kernels that are sketched -> steps at which: the reference's at all, a child's at those after its fork."""
        if not self.sketch:
            return {}
        whose = [SENTINEL, *self._children(setting, chaos)]
        wanted = {
            Sketched(kind, self.sketch, child): tuple(s for s in steps if s > child.fork_step or child == SENTINEL)
            for kind, steps in self.kernel_steps(setting).items()
            for child in whose
        }
        return {key: steps for key, steps in wanted.items() if steps}

    def _children(self, setting: Setting, chaos: Chaos) -> list[Child]:
        """All controls, and the first perturbed child of the primary magnitude, of each chosen fork step."""
        chosen = (chaos.perturbations[0], chaos.primary_magnitude, 0)
        return [
            child
            for child in chaos.children(setting)
            if (self.children is None or child.fork_step in self.children)
            and (child.perturbation == ORDER or (child.perturbation, child.magnitude, child.direction) == chosen)
        ]

    def check(self, setting: Setting, chaos: Chaos) -> None:
        """Hold steps, probe set and children against a setting.

        Raises:
            BadInput: A step lies past the end, the training set is smaller than the probe set, or no child forks at a
                step that children are listed for.
        """
        if not self.kernels:
            return
        within_run("cone.steps", self.steps or (), setting)
        if self.probe_size > setting.num_train:
            raise BadInput(
                f"cone.probe_size must be <= num_train ({setting.num_train} for data '{setting.data}'), "
                f"got {self.probe_size}"
            )
        forks = sorted({child.fork_step for child in chaos.children(setting)})
        for step in self.children or ():
            if step not in forks:
                raise BadInput(
                    f"cone.children must be among chaos.fork_steps ({', '.join(map(str, forks))} for model "
                    f"'{setting.model}'), got {step}"
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
    listed, num_log, num_linear = spaced_steps("cone.steps", given.get("steps"), NUM_LOG, NUM_LINEAR)
    sketch = _sketch(given.get("sketch", 0))
    return Cone(
        kernels=distinct("cone.kernel", kernels),
        steps=listed,
        num_log=num_log,
        num_linear=num_linear,
        probe_size=count("cone.probe_size", given.get("probe_size", Protocol.probe_size), least=2, most=MOST_EXAMPLES),
        probe_seed=count("cone.probe_seed", given.get("probe_seed", Protocol.probe_seed), least=0, most=MOST_SEED),
        sketch=sketch,
        children=_children(given.get("children", False), sketch),
    )


def _sketch(raw: Any) -> int:
    size = count("cone.sketch", raw, least=0, most=MOST_SKETCH)
    if 0 < size < LEAST_SKETCH:
        raise BadInput(f"cone.sketch must be 0 or an integer >= {LEAST_SKETCH}, got {size}; 4096 is off by 2 %")
    return size


def _children(raw: Any, sketch: int) -> tuple[int, ...] | None:
    if raw is False or raw is None:
        return ()
    if not sketch:
        raise BadInput("cone.children must go with cone.sketch > 0, such as 4096: a child's kernel leaves nothing else")
    if raw is True:
        return None
    if not isinstance(raw, list | tuple):
        raise BadInput(f"cone.children must be true, false or a list of fork steps, got {raw!r}")
    steps = [count("cone.children", step, least=0) for step in read_list("cone.children", raw)]
    return tuple(sorted(distinct("cone.children", steps)))
