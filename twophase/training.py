"""The training loop: minibatches, schedule, and one step for every lane."""

import itertools
from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
import torch.nn.functional as F  # noqa: N812
from jaxtyping import Float, Int
from torch import Tensor

from twophase import lanes
from twophase.augmentation import AUGMENTATIONS
from twophase.config import Setting
from twophase.data import Dataset
from twophase.lanes import LaneState
from twophase.models import MODELS, LaneNetwork
from twophase.optimizers import clip_lanes, make_optimizer, set_step
from twophase.schedules import SCHEDULES
from twophase.seeding import stream

DTYPES = {"bfloat16": torch.float32, "float32": torch.float32, "float64": torch.float64}
"""Type of parameters, optimiser state and all that is measured; ``bfloat16`` is autocast in training alone."""


class MinibatchOrder:
    """The order in which one run sees the training set: a shuffle per epoch, partial batches dropped.

    A pure function of (seed, purpose, step): any step can be asked for, in any order.
    """

    def __init__(self, setting: Setting, seed: int, *purpose: str | int, first_step: int = 0) -> None:
        self._num_train, self._batch_size = setting.num_train, setting.batch_size
        self._seed, self._purpose, self._first_step = seed, purpose, first_step
        # Resident where it is used: nothing is copied, and nothing waited for, at each step.
        self._device = torch.device(setting.device)
        self._epoch, self._batches = -1, torch.empty(0)

    def batch(self, step: int) -> Int[Tensor, " B"]:
        """Indices of the minibatch that takes step `step` to the next."""
        per_epoch = self._num_train // self._batch_size
        epoch, position = divmod(step - self._first_step, per_epoch)
        if epoch != self._epoch:
            shuffle = torch.randperm(self._num_train, generator=stream(self._seed, *self._purpose, epoch))
            self._batches = shuffle[: per_epoch * self._batch_size].view(per_epoch, self._batch_size).to(self._device)
            self._epoch = epoch
        return self._batches[position]


def reference_order(setting: Setting, seed: int) -> MinibatchOrder:
    """The minibatch order of the reference and of every perturbed child."""
    return MinibatchOrder(setting, seed, "order")


def control_order(setting: Setting, seed: int, fork_step: int, number: int) -> MinibatchOrder:
    """The order of a control, which begins at its fork."""
    return MinibatchOrder(setting, seed, "order", "control", fork_step, number, first_step=fork_step)


def blank_model(setting: Setting, input_shape: tuple[int, ...], num_classes: int) -> LaneNetwork:
    """Make the network of a setting as one lane, its parameters not yet drawn."""
    architecture = MODELS[setting.model]
    leaves = {name: getattr(setting, name) for name in architecture.defaults if name != "init"}
    return architecture.build(input_shape, num_classes, **leaves)


def build_model(setting: Setting, dataset: Dataset, seed: int) -> LaneNetwork:
    """Make the network of one seed at step 0, as one lane, on the CPU.

    The draws are float32 whatever the precision, so that runs that differ in precision start at the same point.
    """
    model = blank_model(setting, dataset.input_shape, dataset.num_classes)
    model.reset(setting.init, stream(seed, "init"))
    return model.to(DTYPES[setting.precision])


def initial_state(setting: Setting, dataset: Dataset, seed: int) -> LaneState:
    """The whole state of one lane at step 0."""
    model = build_model(setting, dataset, seed)
    return lanes.read(model, make_optimizer(setting.optimizer, list(model.parameters()), setting.rates))


def learning_rate(setting: Setting, step: int) -> float:
    """Learning rate of the update that takes `step` to the next; in warm-up the schedule's times (step + 1)/(w + 1)."""
    factor = SCHEDULES[setting.schedule](step, setting.num_steps, setting.milestone_fractions, setting.gamma)
    return setting.lr * factor * min(1.0, (step + 1) / (setting.warmup_steps + 1))


def learning_rate_integral(setting: Setting, steps: Sequence[int]) -> list[float]:
    """Sum of the learning rates of all updates before each step: a clock that runs as the schedule does."""
    sums = list(itertools.accumulate((learning_rate(setting, step) for step in range(max(steps))), initial=0.0))
    return [sums[step] for step in steps]


def minibatch_inputs(
    setting: Setting, dataset: Dataset, indices: Int[Tensor, "..."], seed: int, step: int
) -> Float[Tensor, "..."]:
    """Training inputs of a minibatch, augmented by this step's draw whoever trains on them."""
    inputs, augment = dataset.train_inputs[indices], AUGMENTATIONS[setting.augmentation]
    if augment is None:
        return inputs
    return augment(inputs, len(dataset.input_shape) - 1, stream(seed, "augmentation", step))


def lane_losses(logits: Float[Tensor, "K B C"], labels: Tensor) -> Float[Tensor, " K"]:
    """Mean cross-entropy of every lane; labels are shared, [B], or one batch per lane, [K, B]."""
    num_lanes, batch, _ = logits.shape
    # Over few classes a softmax is many times faster with the examples innermost, as they lie.
    return F.cross_entropy(logits.transpose(1, 2), labels.expand(num_lanes, batch), reduction="none").mean(1)


def descend(setting: Setting, parameters: Sequence[Tensor], optimizer: torch.optim.Optimizer, step: int) -> None:
    """Take `step` to the next by the gradients that the parameters hold: clipping per lane, learning rate, update."""
    for group in optimizer.param_groups:
        group["lr"] = learning_rate(setting, step)
    if setting.clip_norm:
        clip_lanes(parameters, setting.clip_norm)
    set_step(optimizer, step)
    optimizer.step()


def is_order_free(setting: Setting, dataset: Dataset) -> bool:
    """Tell whether a lane's bits are the same on a minibatch that all lanes share and beside lanes that have their own.

    The tests hold it for lanes on a CPU but for convolutions of two dimensions, whose first layer is an ordinary one on
    a shared minibatch and a grouped one otherwise; half precision isn't among what they hold.
    """
    if setting.engine == "loop" or setting.device != "cpu" or setting.precision == "bfloat16":
        return False
    if not MODELS[setting.model].is_convolutional:
        return True
    return blank_model(setting, dataset.input_shape, dataset.num_classes).can_have_examples_last


class Trainer(ABC):
    """Trains K lanes from step to step.

    Attributes:
        step: Number of updates done.
        lane_steps: Updates done, counted once per lane.
    """

    step: int
    lane_steps: int

    @property
    @abstractmethod
    def state(self) -> LaneState:
        """A copy of the state of all lanes."""

    @abstractmethod
    def load(self, state: LaneState) -> None:
        """Go on from a state of any number of lanes, at the same step."""

    @abstractmethod
    def advance(self, until: int, orders: Sequence[MinibatchOrder]) -> None:
        """Train to step `until`.

        Args:
            until: The step to reach.
            orders: One order that all lanes follow, or one per lane.
        """

    @property
    @abstractmethod
    def num_lanes(self) -> int:
        """Number of lanes K."""


class LaneTrainer(Trainer):
    """Trains K lanes in one batch of arithmetic."""

    def __init__(self, setting: Setting, dataset: Dataset, state: LaneState, *, seed: int, step: int = 0) -> None:
        """Begin at `state`.

        Args:
            setting: What is trained.
            dataset: Its data, on the device that is to train, in the setting's precision.
            state: The lanes.
            seed: Replicate number, of which augmentation draws.
            step: The step that `state` is of.
        """
        self._setting, self._dataset, self._seed = setting, dataset, seed
        self._model = build_model(setting, dataset, seed=0).to(dataset.train_inputs.device)
        self._parameters = list(self._model.parameters())
        self._optimizer = make_optimizer(setting.optimizer, self._parameters, setting.rates)
        self.step, self.lane_steps = step, 0
        self.load(state)

    @property
    def state(self) -> LaneState:
        """A copy of the state of all lanes."""
        return lanes.read(self._model, self._optimizer)

    @property
    def num_lanes(self) -> int:
        """Number of lanes K."""
        return self._model.num_lanes

    def load(self, state: LaneState) -> None:
        """Go on from a state of any number of lanes, at the same step."""
        lanes.write(state, self._model, self._optimizer)

    def advance(self, until: int, orders: Sequence[MinibatchOrder]) -> None:
        """Train all lanes to step `until` together."""
        self._model.train()
        while self.step < until:
            self._update(self._minibatch(orders))
            self.step += 1
            self.lane_steps += self.num_lanes

    def _minibatch(self, orders: Sequence[MinibatchOrder]) -> Int[Tensor, "..."]:
        indices = [order.batch(self.step) for order in orders]
        return indices[0] if len(indices) == 1 else torch.stack(indices)

    def _losses(self, indices: Int[Tensor, "..."]) -> Float[Tensor, " K"]:
        is_half = self._setting.precision == "bfloat16"
        with torch.autocast(self._dataset.train_inputs.device.type, torch.bfloat16, enabled=is_half):
            logits = self._model(minibatch_inputs(self._setting, self._dataset, indices, self._seed, self.step))
        return lane_losses(logits.to(self._dataset.train_inputs.dtype), self._dataset.train_labels[indices])

    def _update(self, indices: Int[Tensor, "..."]) -> None:
        self._optimizer.zero_grad(set_to_none=True)
        self._model.set_noise(self._seed, self.step)
        # The sum's gradient with respect to a lane is that lane's own: no lane sees another.
        torch.autograd.backward(self._losses(indices).sum())
        descend(self._setting, self._parameters, self._optimizer, self.step)


class LoopTrainer(Trainer):
    """Trains K lanes one after the other by the kernels of a single network; convolutions in channels_last.

    A network among lanes and the same network alone round differently: what this trains is compared with nothing that
    lanes trained.
    """

    def __init__(self, setting: Setting, dataset: Dataset, state: LaneState, *, seed: int, step: int = 0) -> None:
        """Begin at `state`; see `LaneTrainer`."""
        self._one = LaneTrainer(setting, dataset, lanes.fork(state), seed=seed, step=step)
        self.step, self.lane_steps = step, 0
        self.load(state)

    @property
    def state(self) -> LaneState:
        """A copy of the state of all lanes."""
        return lanes.stack(self._lanes)

    @property
    def num_lanes(self) -> int:
        """Number of lanes K."""
        return len(self._lanes)

    def load(self, state: LaneState) -> None:
        """Go on from a state of any number of lanes, at the same step."""
        self._lanes = [lanes.fork(state, lane).map(_channels_last) for lane in range(state.num_lanes)]

    def advance(self, until: int, orders: Sequence[MinibatchOrder]) -> None:
        """Train each lane to step `until`, then the next."""
        for lane, state in enumerate(self._lanes):
            self._one.load(state)
            self._one.step = self.step
            self._one.advance(until, orders if len(orders) == 1 else [orders[lane]])
            self._lanes[lane] = self._one.state
        self.lane_steps += (until - self.step) * len(self._lanes)
        self.step = until


def _channels_last(tensor: Tensor) -> Tensor:
    """Lay out a convolution's weight [1, out, in, h, w], and what is shaped like it, with channels innermost."""
    if tensor.dim() != 5:
        return tensor
    return tensor[0].contiguous(memory_format=torch.channels_last).unsqueeze(0)


TRAINERS: dict[str, type[LaneTrainer | LoopTrainer]] = {"lanes": LaneTrainer, "loop": LoopTrainer}
"""How children are trained, by the name of the engine."""
