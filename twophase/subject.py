"""What a perturbation may ask of the trial that it pushes: how parameters are drawn, which are normed, a gradient."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache

import torch
from torch import Tensor

from twophase import lanes
from twophase.augmentation import AUGMENTATIONS
from twophase.config import Setting, Value
from twophase.data import DATA, Dataset
from twophase.lanes import LaneState
from twophase.models import MODELS, LaneNetwork
from twophase.models.layers import Draw
from twophase.training import blank_model, lane_losses

Parameters = dict[str, Tensor]


@dataclass(frozen=True)
class Facts:
    """What a network's code says of its parameters.

    Attributes:
        sizes: Parameter -> number of its entries in one lane, in the network's order.
        draws: Parameter -> how it is drawn at step 0; missing where the code doesn't say.
        normed_layers: Layers whose output goes straight into a normalisation.
    """

    sizes: Mapping[str, int]
    draws: Mapping[str, Draw]
    normed_layers: frozenset[str]


def network_facts(network: LaneNetwork, init: str) -> Facts:
    """Ask a network, drawn or not."""
    sizes = {name: parameter[0].numel() for name, parameter in network.named_parameters()}
    return Facts(sizes, network.draws(init), network.normed_layers())


def setting_facts(setting: Setting) -> Facts:
    """Ask the network that a setting will train, before there is any data; once for all that share a model."""
    return _facts(
        setting.model, setting.data, tuple((name, getattr(setting, name)) for name in MODELS[setting.model].defaults)
    )


@lru_cache
def _facts(model: str, data: str, leaves: tuple[tuple[str, Value], ...]) -> Facts:
    own = dict(leaves)
    init = str(own.pop("init", "none"))
    source = DATA[data]
    return network_facts(MODELS[model].build(source.input_shape, source.num_classes, **own), init)


class Subject:
    """One trial, as far as perturbations ask about it; made once, and computes with a network only when asked.

    Attributes:
        seed: Replicate number, which their streams belong to.
    """

    def __init__(self, setting: Setting, dataset: Dataset, seed: int) -> None:
        """Know a trial.

        Args:
            setting: What is trained.
            dataset: Its data, on the device that trains.
            seed: Replicate number.
        """
        self._setting, self._dataset, self.seed = setting, dataset, seed

    @cached_property
    def _network(self) -> LaneNetwork:
        network = blank_model(self._setting, self._dataset.input_shape, self._dataset.num_classes)
        return network.double().to(self._dataset.train_inputs.device)

    @cached_property
    def facts(self) -> Facts:
        """What the network's code says."""
        network = blank_model(self._setting, self._dataset.input_shape, self._dataset.num_classes)
        return network_facts(network, self._setting.init)

    @property
    def init_norm(self) -> float:
        """Root mean square of the L2 norm at step 0, √(Σ n (mean² + std²)) over all parameters of n entries."""
        sizes, draws = self.facts.sizes, self.facts.draws
        return math.sqrt(sum(n * (draws[name].mean ** 2 + draws[name].std ** 2) for name, n in sizes.items()))

    def gradient(self, state: LaneState, generator: torch.Generator) -> Parameters:
        """Gradient of the training loss at a state of one lane, on one minibatch, in training mode.

        Args:
            state: The lane; it stays as it is, running statistics included.
            generator: Stream that the minibatch, and its augmentation, are drawn from.

        Returns:
            Float64 gradient, computed in float64 whatever the precision, without weight decay or dropout.
        """
        data, setting = self._dataset, self._setting
        drawn = torch.randperm(len(data.train_labels), generator=generator)[: setting.batch_size]
        indices = drawn.to(data.train_labels.device)
        inputs = data.train_inputs[indices].double()
        augment = AUGMENTATIONS[setting.augmentation]
        if augment is not None:
            inputs = augment(inputs, len(data.input_shape) - 1, generator)
        # Contiguous, so that a state trained in another layout of memory has the same gradient to the bit.
        lanes.write(state.map(lambda tensor: tensor.double().contiguous()), self._network)
        loss = lane_losses(self._network.train()(inputs), data.train_labels[indices]).sum()
        names, parameters = zip(*self._network.named_parameters(), strict=True)
        return dict(zip(names, torch.autograd.grad(loss, parameters, materialize_grads=True), strict=True))
