"""Batches of lanes that grow: a reference with its sentinels and children, and controls that go their own way."""

import math
from collections.abc import Callable, Mapping, Sequence

from twophase import chaos, lanes
from twophase.children import Child
from twophase.lanes import LaneState
from twophase.training import MinibatchOrder, Trainer


class ChildBatch:
    """Lane 0 is the reference, then sentinels, then children in order of their fork, all on the same minibatches.

    Attributes:
        trainer: What trains the lanes.
        children: Children there are, in order of their lanes.
        is_sentinel_exact: Whether every sentinel has been bitwise equal to the reference whenever it was checked.
        sentinel_distance: Greatest distance of a sentinel from the reference.
        lane_width: Greatest number of lanes so far.
    """

    def __init__(self, trainer: Trainer, order: MinibatchOrder, least: int) -> None:
        """Begin with a trainer that holds `least` copies of the reference.

        Args:
            trainer: The lanes.
            order: The minibatches of all.
            least: Fewest lanes; sentinels fill up.
        """
        self.trainer, self.children = trainer, list[Child]()
        self._order, self._least = order, least
        self.is_sentinel_exact, self.sentinel_distance = True, 0.0
        self.lane_width = trainer.num_lanes

    @property
    def orders(self) -> list[MinibatchOrder]:
        """What each lane trains on."""
        return [self._order] * self.trainer.num_lanes

    @property
    def num_sentinels(self) -> int:
        """Number of sentinels."""
        return self.trainer.num_lanes - 1 - len(self.children)

    def advance(self, until: int) -> None:
        """Train to a step."""
        self.trainer.advance(until, [self._order])

    def check_sentinels(self, state: LaneState) -> None:
        """Compare every sentinel with the reference, bit by bit, since its last fork."""
        for lane in range(1, 1 + self.num_sentinels):
            self.is_sentinel_exact &= lanes.is_exact_copy(state, lane)
            apart = float(chaos.distance(lanes.take(state, [0, lane]))[1])
            # NaN - NaN is NaN, though the bits agree: a diverged reference is no broken sentinel.
            self.sentinel_distance = max(self.sentinel_distance, 0.0 if math.isnan(apart) else apart)

    def grow(self, state: LaneState, made: Mapping[Child, LaneState], sentinel: Callable[[], LaneState]) -> None:
        """Add children, and put new sentinels in place of the old.

        Args:
            state: The batch as it is.
            made: The children, each as a state of one lane.
            sentinel: Makes a sentinel by the children's own fork code.
        """
        first_child = state.num_lanes - len(self.children)
        kept = [lanes.take(state, range(first_child, state.num_lanes))] if self.children else []
        self.children += made
        sentinels = [sentinel() for _ in range(max(1, self._least - 1 - len(self.children)))]
        self.trainer.load(lanes.stack([lanes.fork(state), *sentinels, *kept, *made.values()]))
        self.lane_width = max(self.lane_width, self.trainer.num_lanes)

    def compared(self, state: LaneState) -> LaneState:
        """The lanes that are measured: the reference, one sentinel, the children."""
        return lanes.take(state, [0, 1, *range(state.num_lanes - len(self.children), state.num_lanes)])


class ControlBatch:
    """Controls, each on minibatches of its own; too few are filled up with copies of the first.

    Attributes:
        trainer: What trains the lanes.
        controls: Controls there are, in order of their lanes.
    """

    def __init__(self, trainer: Trainer, least: int) -> None:
        """Begin empty.

        Args:
            trainer: The lanes, at the step of the first fork.
            least: Fewest lanes.
        """
        self.trainer, self.controls = trainer, list[Child]()
        self._orders, self._least = list[MinibatchOrder](), least

    @property
    def orders(self) -> list[MinibatchOrder]:
        """What each lane trains on, padding included."""
        return self._orders

    def advance(self, until: int) -> None:
        """Train to a step."""
        self.trainer.advance(until, self._orders)

    def grow(self, made: Mapping[Child, LaneState], orders: Sequence[MinibatchOrder]) -> None:
        """Add controls, each with its order."""
        kept = [self.state] if self.controls else []
        mine = [*self._orders[: len(self.controls)], *orders]
        self.controls += made
        padding = [0] * max(0, self._least - len(self.controls))
        self.trainer.load(lanes.take(lanes.stack([*kept, *made.values()]), [*range(len(self.controls)), *padding]))
        self._orders = [*mine, *mine[:1] * len(padding)]

    def resume(self, controls: Sequence[Child], orders: Sequence[MinibatchOrder]) -> None:
        """Say which controls the trainer's lanes are; the rest are padding."""
        self.controls = list(controls)
        self._orders = [*orders, *[orders[0]] * (self.trainer.num_lanes - len(self.controls))]

    @property
    def state(self) -> LaneState:
        """The controls, without padding."""
        return lanes.take(self.trainer.state, range(len(self.controls)))


class Joint:
    """Trains batches as one, which saves a step's small operations; only where no lane's bits depend on the others."""

    def __init__(self, trainer: Callable[[LaneState, int], Trainer], most: int) -> None:
        """Begin with nothing.

        Args:
            trainer: (state, step) -> what trains it.
            most: Most lanes that train together; 0 to train each batch by itself.
        """
        self._make, self._most = trainer, most
        self._trainer: Trainer | None = None

    def advance(self, batches: Sequence[ChildBatch | ControlBatch], until: int) -> None:
        """Train batches that stand at one step to another."""
        trainers = [batch.trainer for batch in batches]
        if len(batches) < 2 or sum(trainer.num_lanes for trainer in trainers) > self._most:
            for batch in batches:
                batch.advance(until)
            return
        step, state = trainers[0].step, lanes.stack([trainer.state for trainer in trainers])
        if self._trainer is None:
            self._trainer = self._make(state, step)
        else:
            self._trainer.load(state)
            self._trainer.step = step
        self._trainer.advance(until, [order for batch in batches for order in batch.orders])
        state, first = self._trainer.state, 0
        for trainer in trainers:
            last = first + trainer.num_lanes
            trainer.load(lanes.take(state, range(first, last)))
            trainer.lane_steps += (until - step) * trainer.num_lanes
            trainer.step, first = until, last
