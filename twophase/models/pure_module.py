"""A module as a pure function of its parameters and buffers, evaluated for many lanes of them."""

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.nn.modules.batchnorm import _NormBase

from twophase.models.user_module import seeded

Values = Mapping[str, Tensor]


class _Recording(nn.Module):
    """Returns a module's buffers, as a call leaves them, beside its outputs."""

    def __init__(self, module: nn.Module, holders: Mapping[str, tuple[nn.Module, str]]) -> None:
        super().__init__()
        self.module = module
        self.holders = holders

    def forward(self, inputs: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        outputs = self.module(inputs)
        return outputs, {name: getattr(holder, attribute) for name, (holder, attribute) in self.holders.items()}


class PureModule:
    """Calls a module with any parameters and buffers in place of its own.

    A tensor that stands in several places of the module is one tensor here, under the first of its names. Parameters
    that require no gradient count as buffers: they are neither trained nor perturbed.

    Attributes:
        module: The module.
        parameters: Name -> what is trained, as the module has it.
        buffers: Name -> everything else that it holds.
        norms: Its normalisations with running statistics -> names of their buffers.
    """

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        self.parameters: dict[str, Tensor] = {}
        self.buffers: dict[str, Tensor] = {}
        self.norms: dict[_NormBase, dict[str, str]] = {}
        self._places: dict[str, str] = {}
        holders: dict[str, tuple[nn.Module, str]] = {}
        first: dict[int, str] = {}
        for holder, attribute, place, tensor in _tensors(module):
            name = first.setdefault(id(tensor), place)
            self._places[f"module.{place}"] = name
            is_trained = isinstance(tensor, nn.Parameter) and tensor.requires_grad
            (self.parameters if is_trained else self.buffers)[name] = tensor.detach()
            if not is_trained:
                holders.setdefault(name, (holder, attribute))
            if isinstance(holder, _NormBase) and holder.running_mean is not None and not is_trained:
                self.norms.setdefault(holder, {})[attribute] = name
        self._recording = _Recording(module, holders)
        self._usual_weights = {norm: norm.momentum for norm in self.norms}

    def set_mode(self, *, is_training: bool, is_noisy: bool) -> None:
        """Switch to evaluation or training; training without noise is that of the running statistics alone."""
        self._recording.train(is_training and is_noisy)
        for norm in self.norms:
            norm.train(is_training)

    def set_statistics_weight(self, weight: float | None) -> None:
        """Set the weight of the newest batch in the running statistics; None for each normalisation's own."""
        for norm, usual in self._usual_weights.items():
            norm.momentum = usual if weight is None else weight

    def call(self, parameters: Values, buffers: Values, inputs: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Outputs of one lane, and its buffers after; tensors given for buffers may be changed in place."""
        values = {**parameters, **buffers}
        placed = {place: values[name] for place, name in self._places.items()}
        result: tuple[Tensor, dict[str, Tensor]] = functional_call(
            self._recording, placed, (inputs,), tie_weights=False
        )
        return result

    def by_vmap(
        self, parameters: Values, buffers: Values, inputs: Tensor, noise: int
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Outputs of all lanes in one batch of arithmetic: [K, ...] in, inputs included, and [K, ...] out."""
        with seeded(noise, inputs.device):
            copies = {name: value.clone() for name, value in buffers.items()}
            result: tuple[Tensor, dict[str, Tensor]] = vmap(self.call, randomness="same")(parameters, copies, inputs)
        return result

    def by_loop(
        self, parameters: Values, buffers: Values, inputs: Tensor, noise: int
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The same, one lane after another, each with the same noise."""
        parts = []
        for lane in range(len(inputs)):
            # Copied, so that every lane's tensors lie alike in memory, and round alike.
            own, state = ({name: value[lane].clone() for name, value in part.items()} for part in (parameters, buffers))
            with seeded(noise, inputs.device):
                parts.append(self.call(own, state, inputs[lane].clone()))
        outputs = torch.stack([outputs for outputs, _ in parts])
        return outputs, {name: torch.stack([after[name] for _, after in parts]) for name in buffers}


def _tensors(module: nn.Module) -> Iterator[tuple[nn.Module, str, str, Tensor]]:
    """Every place of a parameter or buffer: the part that holds it, its attribute, its full name, and the tensor."""
    for path, part in module.named_modules():
        held = (
            *part.named_parameters(recurse=False, remove_duplicate=False),
            *part.named_buffers(recurse=False, remove_duplicate=False),
        )
        for attribute, tensor in held:
            yield part, attribute, f"{path}.{attribute}" if path else attribute, tensor
