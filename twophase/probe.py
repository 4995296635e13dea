"""Kernels of the reference at chosen steps of a run: the rows of `cone` and `kernel`.

Every kernel is of lane 0 alone, on one probe set that all seeds share, batch-norm statistics recomputed first: the
kernel with running and that with recomputed statistics of the same weights differ more than most checkpoints do.
Of all kernels only their inner products and what is said of each are kept in the end, and no more of them are in memory
at a time than a budget allows.
"""

import time
from collections.abc import Collection, Mapping
from dataclasses import asdict, replace
from typing import Any

import numpy as np
from torch import Tensor

from twophase import cone, lanes
from twophase.config import Trial
from twophase.data import Dataset, stratified
from twophase.evaluation import Evaluator
from twophase.kernel import KINDS, KernelSummary, entk, summarise
from twophase.kernels.streaming import MEMORY_BYTES, StreamingGram
from twophase.lanes import LaneState
from twophase.models import OneLane
from twophase.training import build_model

Row = dict[str, Any]


class KernelProbe:
    """Takes kernels as a run passes their steps.

    Attributes:
        seconds: Wall time spent.
    """

    def __init__(
        self, trial: Trial, dataset: Dataset, evaluator: Evaluator, steps: Mapping[str, Collection[int]]
    ) -> None:
        """Choose the probe set.

        Args:
            trial: Setting, seed and protocol.
            dataset: The data, where it is to be computed.
            evaluator: The trial's, which recomputes statistics.
            steps: Kind of kernel -> steps at which to take it.
        """
        protocol = trial.protocol
        chosen = stratified(
            dataset.train_labels.cpu(), protocol.probe_size, seed=protocol.probe_seed, purpose="probe"
        ).to(dataset.train_labels.device)
        self._inputs, self._labels = dataset.train_inputs[chosen], dataset.train_labels[chosen]
        self._num_classes, self._seed = dataset.num_classes, protocol.probe_seed
        self._network = build_model(trial.setting, dataset, seed=0).to(self._inputs.device)
        self._evaluator, self._steps = evaluator, {kind: sorted(wanted) for kind, wanted in steps.items()}
        self._grams = {kind: StreamingGram(MEMORY_BYTES // len(steps)) for kind in steps}
        self._summaries: dict[str, list[KernelSummary]] = {kind: [] for kind in steps}
        self.seconds = 0.0

    @property
    def steps(self) -> set[int]:
        """All steps at which something is due."""
        return {step for wanted in self._steps.values() for step in wanted}

    def visit(self, state: LaneState, step: int) -> None:
        """Take the kernels that are due at a step, of lane 0 of a state."""
        due = [kind for kind, wanted in self._steps.items() if step in wanted]
        if not due:
            return
        began = time.perf_counter()
        lanes.write(self._evaluator.recomputed(lanes.fork(state)), self._network)
        for kind in due:
            kernel = entk(OneLane(self._network), self._inputs, kind, labels=self._labels, seed=self._seed)
            self._grams[kind].add(kernel)
            summary = summarise(kernel, self._labels, self._num_classes)
            if not KINDS[kind].has_diagonal:
                summary = replace(summary, trace=float("nan"), effective_rank=float("nan"))
            self._summaries[kind].append(summary)
        self.seconds += time.perf_counter() - began

    def checkpoint(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """What has been taken so far: as JSON, and the kernels by name."""
        taken = {kind: gram.checkpoint() for kind, gram in self._grams.items()}
        products = {kind: rows for kind, (rows, _) in taken.items()}
        summaries = {kind: [asdict(summary) for summary in found] for kind, found in self._summaries.items()}
        named = {f"{kind} {i}": kernel for kind, (_, kept) in taken.items() for i, kernel in enumerate(kept)}
        return {"products": products, "summaries": summaries, "seconds": self.seconds}, named

    def resume(self, note: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
        """Go on from a checkpoint."""
        self.seconds = note["seconds"]
        for kind, found in note["summaries"].items():
            self._summaries[kind] = [KernelSummary(**summary) for summary in found]
            self._grams[kind].resume(note["products"][kind], [tensors[f"{kind} {i}"] for i in range(len(found))])

    def rows(self, kind: str) -> dict[str, list[Row]]:
        """Rows of `cone`, for every ordered pair of steps, and of `kernel`, once all steps have been visited."""
        steps, gram = self._steps[kind], self._grams[kind].matrix()
        self._grams[kind].close()
        between = cone.distances(gram)
        speeds = cone.velocities(gram, np.asarray(steps, dtype=np.float64))
        pairs = [
            {
                "kernel": kind,
                "step_i": step_i,
                "step_j": step_j,
                "inner_product": float(gram[i, j]),
                "kernel_distance": float(between[i, j]),
            }
            for i, step_i in enumerate(steps)
            for j, step_j in enumerate(steps)
        ]
        single = [
            {"kernel": kind, "step": step, **asdict(summary), "velocity": float(speed)}
            for step, summary, speed in zip(steps, self._summaries[kind], speeds, strict=True)
        ]
        return {"cone": pairs, "kernel": single}
