"""What a batch of lanes computes on data: losses, errors, probabilities, recomputed statistics."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F  # noqa: N812
from jaxtyping import Float
from torch import Tensor

from twophase import lanes
from twophase.config import Trial
from twophase.data import Dataset, stratified
from twophase.lanes import LaneState
from twophase.models import LaneNetwork
from twophase.training import build_model

Logits = Callable[[Tensor], Tensor]

BATCH = 256
"""Examples of one evaluation batch; also of one term of the cumulative batch-norm averages."""


@dataclass(frozen=True)
class Scores:
    """Mean cross-entropy and error rate of every lane, float64, on the train sample and on the test set."""

    train_loss: Float[Tensor, " K"]
    train_error: Float[Tensor, " K"]
    test_loss: Float[Tensor, " K"]
    test_error: Float[Tensor, " K"]


class Evaluator:
    """Evaluates states of any number of lanes on a trial's fixed train sample and test set."""

    def __init__(self, trial: Trial, dataset: Dataset) -> None:
        """Draw the sample; `dataset` is on the device that is to compute."""
        setting = trial.setting
        sample = stratified(
            dataset.train_labels.cpu(), trial.protocol.train_sample, seed=setting.data_seed, purpose="train sample"
        ).to(dataset.train_labels.device)
        self._train = (dataset.train_inputs[sample], dataset.train_labels[sample])
        self._test = (dataset.test_inputs, dataset.test_labels)
        self._model = build_model(setting, dataset, seed=0).to(dataset.train_inputs.device)

    @torch.no_grad()
    def scores(self, state: LaneState, *, recompute: bool) -> Scores:
        """Score every lane.

        Args:
            state: K lanes.
            recompute: Whether batch-norm statistics are recomputed on the train sample first, as on a path, or taken as
                they run.

        Returns:
            Losses and errors, [K] each. NaN where a lane's logits are not finite.
        """
        model = self._load(state)
        if recompute:
            recompute_statistics(model, self._train[0])
        return self.scores_of(model.eval(), model.num_lanes, state.num_lanes)

    def scores_of(self, logits: Logits, num_lanes: int, kept: int) -> Scores:
        """Score any function that gives lanes of logits.

        Args:
            logits: Inputs [N, ...] -> logits [K, N, C].
            num_lanes: Number of lanes K.
            kept: How many of them to score; the rest are padding.

        Returns:
            Losses and errors, [kept] each. NaN where a lane's logits are not finite.
        """
        train_loss, train_error = _loss_and_error(logits, num_lanes, *self._train)
        test_loss, test_error = _loss_and_error(logits, num_lanes, *self._test)
        return Scores(train_loss[:kept], train_error[:kept], test_loss[:kept], test_error[:kept])

    @torch.no_grad()
    def test_outputs(self, state: LaneState) -> tuple[Float[Tensor, "K N C"], Float[Tensor, "K N F"] | None]:
        """Predictions on the test set, each lane with its own running statistics.

        Returns:
            Probabilities, and the features that enter the head; None where a network has no module of that name.
        """
        model = self._load(state).eval()
        seen: list[Tensor] = []
        head = getattr(model, "head", None)
        hook = head.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0])) if head is not None else None
        parts = [model(inputs).softmax(-1) for inputs in torch.split(self._test[0], BATCH)]
        if hook is not None:
            hook.remove()
        kept = state.num_lanes
        return torch.cat(parts, 1)[:kept], torch.cat(seen, 1)[:kept] if seen else None

    def recomputed(self, state: LaneState) -> LaneState:
        """Copy lanes with their batch-norm statistics recomputed on the train sample, as on a path."""
        model = self._load(state)
        recompute_statistics(model, self._train[0])
        buffers = {name: value[: state.num_lanes].detach().clone() for name, value in model.named_buffers()}
        return replace(state, buffers=buffers)

    def _load(self, state: LaneState) -> LaneNetwork:
        """Load lanes, padded to the width from which results don't depend on it."""
        padding = [0] * max(0, lanes.MIN_LANES - state.num_lanes)
        lanes.write(lanes.take(state, [*range(state.num_lanes), *padding]) if padding else state, self._model)
        return self._model


@torch.no_grad()
def recompute_statistics(model: LaneNetwork, inputs: Tensor) -> None:
    """Replace running batch-norm statistics by cumulative averages over `inputs`, in batches of 256."""
    if not model.reset_statistics():
        return
    model.train()
    for i, batch in enumerate(_without_single(inputs)):
        model.set_statistics_weight(1.0 / (i + 1))
        model(batch)
    model.set_statistics_weight(None)


def _without_single(inputs: Tensor) -> Iterator[Tensor]:
    """Batches of 256, leaving out a last one of a single example: it has no variance."""
    for i, batch in enumerate(torch.split(inputs, BATCH)):
        if i == 0 or len(batch) > 1:
            yield batch


def _loss_and_error(model: Logits, num_lanes: int, inputs: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    loss = torch.zeros(num_lanes, dtype=torch.float64, device=inputs.device)
    wrong = torch.zeros_like(loss)
    for batch, targets in zip(torch.split(inputs, BATCH), torch.split(labels, BATCH), strict=True):
        logits = model(batch)
        flat = targets.expand(num_lanes, -1).flatten()
        losses = F.cross_entropy(logits.flatten(0, 1), flat, reduction="none").view(num_lanes, -1)
        loss += losses.sum(1, dtype=torch.float64)
        # argmax takes NaN for the greatest: without the loss's NaN a broken net would look merely wrong.
        wrong += (logits.argmax(-1) != targets).sum(1)
    return loss / len(labels), torch.where(loss.isnan(), loss, wrong / len(labels))
