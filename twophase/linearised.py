"""Training of a network's first-order expansion, which takes its place from a switch step t on.

    f_lin(x; θ) = f(x; θ_t) + J(x; θ_t) (θ − θ_t),    J = ∂f/∂θ

(Fort et al. 2020, arXiv:2010.15110, and figure 6 of arXiv:2505.13900). Everything else goes on as it was: the optimiser
with the state that it has at t, its weight decay on θ, clipping, the schedule, the minibatches and their augmentation.
The network is in evaluation mode about θ_t: dropout is off, and batch-norm statistics are constants of the expansion.
Parameters hold θ, not θ − θ_t: the difference of two floats that lie near one another is exact.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.func import functional_call

from twophase import dual, lanes
from twophase.config import Setting
from twophase.data import Dataset
from twophase.lanes import LaneState
from twophase.models import LaneNetwork
from twophase.optimizers import make_optimizer
from twophase.training import MinibatchOrder, build_model, descend, lane_losses, minibatch_inputs

Parameters = dict[str, Tensor]
Losses = Callable[[Tensor, Tensor], Tensor]
"""(logits [K, B, C], labels [B]) -> mean loss of every lane, [K]."""


class Expansion:
    """The first-order expansions of K networks, each about a centre of its own.

    Attributes:
        network: The lanes at their centres.
    """

    def __init__(self, network: LaneNetwork, centre: LaneState) -> None:
        """Put a network, which is changed, to its centres.

        Args:
            network: Of the centres' architecture, with any number of lanes.
            centre: θ_t and the statistics of every lane.
        """
        self.network = network.eval()
        # A module of one's own would otherwise be vectorised by vmap, which not all of forward mode goes through.
        self.network.stop_tracking()
        lanes.write(centre, self.network)
        self._centre = {name: value.detach() for name, value in self.network.named_parameters()}

    @property
    def num_lanes(self) -> int:
        """Number of networks K."""
        return self.network.num_lanes

    @torch.no_grad()
    def logits(self, parameters: Parameters, inputs: Float[Tensor, "..."]) -> Float[Tensor, "K B C"]:
        """Compute f(x; θ_t) + J(x; θ_t) (θ − θ_t) by one pass of dual numbers.

        Args:
            parameters: θ of every lane, by name.
            inputs: One minibatch for all lanes, [B, *input_shape].

        Returns:
            Logits.
        """
        with dual.level():
            at = {name: dual.dual(value, parameters[name] - value) for name, value in self._centre.items()}
            both = functional_call(self.network, at, (inputs,))
            return dual.primal_of(both) + dual.tangent_of(both)

    def gradient(
        self, parameters: Parameters, inputs: Float[Tensor, "..."], labels: Int[Tensor, " B"], losses: Losses
    ) -> dict[str, Tensor | None]:
        """Compute every lane's gradient of its loss, Jᵀ ∂ℓ/∂f, by one backward pass at θ_t.

        For the mean cross-entropy ∂ℓ/∂f is (softmax − onehot) / B. At θ = θ_t this is the network's own gradient.

        Args:
            parameters: θ of every lane, by name.
            inputs: One minibatch for all lanes.
            labels: Its labels.
            losses: The loss, of which only the gradient with respect to the logits is taken.

        Returns:
            Name -> gradient [K, ...]; None where the logits don't depend on a parameter.
        """
        logits = self.logits(parameters, inputs).requires_grad_()
        # The sum's gradient with respect to a lane is that lane's own: no lane sees another.
        (pull,) = torch.autograd.grad(losses(logits, labels).sum(), logits)
        names, values = zip(*self.network.named_parameters(), strict=True)
        return dict(zip(names, torch.autograd.grad(self.network(inputs), values, pull, allow_unused=True), strict=True))


class LinearisedTrainer:
    """Trains K lanes on their expansions, all on the same minibatches.

    Attributes:
        step: Number of updates done, those before the switch included.
        expansion: What is trained.
        centre: What it is an expansion about.
    """

    def __init__(
        self,
        setting: Setting,
        dataset: Dataset,
        state: LaneState,
        centre: LaneState,
        *,
        seed: int,
        step: int,
        losses: Losses = lane_losses,
    ) -> None:
        """Begin at `state`.

        Args:
            setting: What is trained.
            dataset: Its data, on the device that is to train, in the setting's precision.
            state: θ and the optimiser's state of every lane.
            centre: θ_t of every lane, and the statistics that it keeps; at the switch, θ is θ_t.
            seed: Replicate number, of which the minibatches' augmentation draws.
            step: The step that `state` is of.
            losses: The loss.
        """
        self._setting, self._dataset, self._seed, self._losses = setting, dataset, seed, losses
        device = dataset.train_inputs.device
        self._model = build_model(setting, dataset, seed).to(device)
        self._optimizer = make_optimizer(setting.optimizer, list(self._model.parameters()), setting.rates)
        lanes.write(state, self._model, self._optimizer)
        self.expansion = Expansion(build_model(setting, dataset, seed).to(device), centre)
        self.centre, self.step = centre, step

    @property
    def num_lanes(self) -> int:
        """Number of lanes K."""
        return self._model.num_lanes

    @property
    def state(self) -> LaneState:
        """A copy of θ, statistics and optimiser state of all lanes."""
        return lanes.read(self._model, self._optimizer)

    def logits(self, inputs: Float[Tensor, "..."]) -> Float[Tensor, "K B C"]:
        """Logits of the expansions at the parameters that they have now."""
        return self.expansion.logits(self._parameters(), inputs)

    def advance(self, until: int, order: MinibatchOrder) -> None:
        """Train to step `until`."""
        while self.step < until:
            indices = order.batch(self.step)
            inputs = minibatch_inputs(self._setting, self._dataset, indices, self._seed, self.step)
            labels = self._dataset.train_labels[indices]
            gradient = self.expansion.gradient(self._parameters(), inputs, labels, self._losses)
            for name, parameter in self._model.named_parameters():
                parameter.grad = gradient[name]
            descend(self._setting, list(self._model.parameters()), self._optimizer, self.step)
            self.step += 1

    def _parameters(self) -> Parameters:
        return {name: value.detach() for name, value in self._model.named_parameters()}
