"""K networks of a user's own module, by torch.func: vmap over lanes where that is exact, else one lane at a time."""

import copy
from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor, nn

from twophase.errors import BadInput
from twophase.models.custom_rules import check_module, is_vmap_exact
from twophase.models.network import Architecture, LaneNetwork, Leaves
from twophase.models.pure_module import PureModule
from twophase.models.user_module import bad_build, make, source_digest
from twophase.seeding import stream_seed


class CustomNetwork(LaneNetwork):
    """Lanes of the module that a user's function makes; its parameters and buffers under their own names.

    Attributes:
        is_vmapped: Whether lanes are computed together; a single one never is.
    """

    def __init__(self, input_shape: tuple[int, ...], num_classes: int, *, build: str, build_digest: str) -> None:
        super().__init__(input_shape)
        if source_digest(build, input_shape, num_classes) != build_digest:
            raise bad_build(build, "has another source than when the space was checked; start twophase again")
        self._origin = (build, input_shape, num_classes)
        self._pure, self._width = PureModule(make(*self._origin, seed=0)), 1
        self._noise: int | None = None
        self._statistics_weight: float | None = None
        self.is_vmapped = is_vmap_exact(*self._origin)
        self.net = _holding(self._pure)

    @property
    def num_lanes(self) -> int:
        """Number of networks K."""
        return next(self.parameters()).shape[0]

    def __deepcopy__(self, memo: dict[int, object]) -> "CustomNetwork":
        """Build the module anew: what it keeps of its last call may hold a graph, which can't be copied."""
        build, input_shape, num_classes = self._origin
        digest = source_digest(*self._origin)
        twin = CustomNetwork(input_shape, num_classes, build=build, build_digest=digest)
        memo[id(self)] = twin
        twin.net, twin.training = copy.deepcopy(self.net, memo), self.training
        twin._noise, twin._statistics_weight = self._noise, self._statistics_weight
        twin.is_tracking = self.is_tracking
        return twin

    def reset(self, init: str, generator: torch.Generator) -> None:  # noqa: ARG002 - the module's own
        """Build the module anew, as a single lane."""
        seed = int(torch.randint(2**62, (), generator=generator))
        self.net = _holding(PureModule(make(*self._origin, seed)))

    def set_noise(self, seed: int, step: int) -> None:
        """Say what its random layers draw from: torch's generator under a seed of the step, the same for every lane."""
        self._noise = stream_seed(seed, "dropout", step)

    def reset_statistics(self) -> bool:
        """Forget the running statistics of its normalisations."""
        for names in self._pure.norms.values():
            for attribute, name in names.items():
                self.net.get_buffer(name).fill_(1 if attribute == "running_var" else 0)
        return bool(self._pure.norms)

    def set_statistics_weight(self, weight: float | None) -> None:
        """Set the weight of the newest batch in the running statistics; None for each module's own."""
        self._statistics_weight = weight

    def logits(self, inputs: Tensor, *, is_shared: bool) -> Float[Tensor, "K B C"]:
        """Call the module for every lane, and keep what it made of its buffers in training."""
        parameters, buffers = dict(self.net.named_parameters()), dict(self.net.named_buffers())
        if not self.is_tracking:  # whoever gives parameters by the call may leave buffers as one lane has them
            buffers = {name: value.expand(self.num_lanes, *value.shape[1:]) for name, value in buffers.items()}
        lanes = inputs.expand(self.num_lanes, *inputs.shape) if is_shared else inputs
        pure = self._of_this_width()
        pure.set_mode(is_training=self.training, is_noisy=self._noise is not None)
        pure.set_statistics_weight(self._statistics_weight)
        # Where nothing is tracked, training is differentiated in forward mode, which not all of vmap's rules know.
        is_vmapped = self.is_vmapped and self.is_tracking and self.num_lanes > 1
        run = pure.by_vmap if is_vmapped else pure.by_loop
        logits, after = run(parameters, buffers, lanes, self._noise or 0)
        if self.training and self.is_tracking:
            with torch.no_grad():
                for name, buffer in buffers.items():
                    buffer.copy_(after[name])
        return logits

    def _of_this_width(self) -> PureModule:
        """The module to call: a new one for a new number of lanes.

        What a module keeps of its last call (an LSTM its weights, others their attention) holds that call's graph, in
        which parameters still have their old shape.
        """
        if self._width != self.num_lanes:
            self._pure, self._width = PureModule(make(*self._origin, seed=0)), self.num_lanes
        return self._pure


def _holding(pure: PureModule) -> nn.Module:
    """A tree of plain modules that holds one lane of a module's tensors under their names."""
    root = nn.Module()
    for tensors, is_trained in ((pure.parameters, True), (pure.buffers, False)):
        for name, value in tensors.items():
            *path, attribute = name.split(".")
            holder = root
            for part in path:
                if part not in dict(holder.named_children()):
                    setattr(holder, part, nn.Module())
                holder = holder.get_submodule(part)
            lane = (value.float() if value.is_floating_point() else value).unsqueeze(0).clone()
            if is_trained:
                setattr(holder, attribute, nn.Parameter(lane))
            else:
                holder.register_buffer(attribute, lane)
    return root


def settle(leaves: Leaves, input_shape: tuple[int, ...], num_classes: int) -> Mapping[str, str]:
    """Check the module, and tell the hash of its source."""
    build, given = str(leaves["build"]), str(leaves["build_digest"])
    check_module(build, input_shape, num_classes)
    digest = source_digest(build, input_shape, num_classes)
    if given not in ("none", digest):
        raise BadInput(f"build_digest must be that of the source of '{build}', {digest}, got {given}; leave it out")
    return {"build_digest": digest}


ARCHITECTURE = Architecture(CustomNetwork, defaults={"build": "none", "build_digest": "none"}, ranges={}, settle=settle)
