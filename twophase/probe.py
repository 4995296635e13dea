"""Kernels at chosen steps of a run: the rows of `cone`, `kernel` and `sketch`.

All are on one probe set that all seeds share, batch-norm statistics recomputed first: the kernel with running and that
with recomputed statistics of the same weights differ more than most checkpoints do. Of the reference's kernels only
their inner products and what is said of each are kept in the end, and no more of them are in memory at a time than a
budget allows. Kernels that are to be compared across runs, the reference's or its children's, leave a sketch.
"""

import time
from collections.abc import Collection, Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from torch import Tensor

from twophase import cone, lanes
from twophase.children import SENTINEL, Child, Sketched, child_keys
from twophase.config import Trial
from twophase.data import Dataset, stratified
from twophase.evaluation import Evaluator
from twophase.kernel import KINDS, KernelSummary, entk, summarise
from twophase.kernels.sketch import count_sketch
from twophase.kernels.streaming import MEMORY_BYTES, StreamingGram
from twophase.lanes import LaneState
from twophase.models import OneLane
from twophase.training import build_model

Row = dict[str, Any]


class KernelProbe:
    """Takes kernels as a run passes their steps.

    Attributes:
        seconds: Wall time spent on the reference's kernels.
        sketch_seconds: Wall time spent on kernels that are sketched and nothing else.
    """

    def __init__(
        self,
        trial: Trial,
        dataset: Dataset,
        evaluator: Evaluator,
        steps: Mapping[str, Collection[int]],
        sketch_steps: Mapping[Sketched, Collection[int]] | None = None,
    ) -> None:
        """Choose the probe set.

        Args:
            trial: Setting, seed and protocol.
            dataset: The data, where it is to be computed.
            evaluator: The trial's, which recomputes statistics.
            steps: Kind of kernel -> steps at which to take the reference's.
            sketch_steps: Kind, size and child -> steps at which to sketch that child's, or the reference's.
        """
        protocol = trial.protocol
        chosen = stratified(
            dataset.train_labels.cpu(), protocol.probe_size, seed=protocol.probe_seed, purpose="probe"
        ).to(dataset.train_labels.device)
        self._inputs, self._labels = dataset.train_inputs[chosen], dataset.train_labels[chosen]
        self._num_classes, self._seed = dataset.num_classes, protocol.probe_seed
        self._network = build_model(trial.setting, dataset, seed=0).to(self._inputs.device)
        self._evaluator, self._steps = evaluator, {kind: sorted(wanted) for kind, wanted in steps.items()}
        self._sketch_steps = sketch_steps or {}
        self._grams = {kind: StreamingGram(MEMORY_BYTES // len(steps)) for kind in steps}
        self._summaries: dict[str, list[KernelSummary]] = {kind: [] for kind in steps}
        self._sketches: list[Row] = []
        self.seconds = self.sketch_seconds = 0.0

    def visit(self, state: LaneState, step: int, child: Child = SENTINEL) -> None:
        """Take the kernels that are due at a step.

        Args:
            state: Lane 0 is the network.
            step: Its step.
            child: Which one it is; the sentinel stands for the reference.
        """
        due = {kind for kind, wanted in self._steps.items() if child == SENTINEL and step in wanted}
        sketched = [key for key, wanted in self._sketch_steps.items() if key.child == child and step in wanted]
        kinds = sorted(due | {key.kernel for key in sketched})
        if not kinds:
            return
        began = time.perf_counter()
        lanes.write(self._evaluator.recomputed(lanes.fork(state)), self._network)
        for kind in kinds:
            kernel = entk(OneLane(self._network), self._inputs, kind, labels=self._labels, seed=self._seed)
            if kind in due:
                self._grams[kind].add(kernel)
                summary = summarise(kernel, self._labels, self._num_classes)
                self._summaries[kind].append(summary if KINDS[kind].has_diagonal else summary.without_diagonal())
            self._sketches += [self._sketch(kernel, key, step) for key in sketched if key.kernel == kind]
        spent = time.perf_counter() - began
        if due:
            self.seconds += spent
        else:
            self.sketch_seconds += spent

    def _sketch(self, kernel: Tensor, key: Sketched, step: int) -> Row:
        norm, sketch = count_sketch(kernel, key.size, self._seed)
        keys = {"kernel": key.kernel, "size": key.size, **child_keys(key.child), "step": step}
        return {**keys, "norm": norm, "sketch": sketch}

    def checkpoint(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """What has been taken so far: as JSON, and kernels and sketches by name."""
        taken = {kind: gram.checkpoint() for kind, gram in self._grams.items()}
        note = {
            "products": {kind: rows for kind, (rows, _) in taken.items()},
            "summaries": {kind: [asdict(summary) for summary in found] for kind, found in self._summaries.items()},
            "sketches": [{name: value for name, value in row.items() if name != "sketch"} for row in self._sketches],
            "seconds": [self.seconds, self.sketch_seconds],
        }
        named = {f"{kind} {i}": kernel for kind, (_, kept) in taken.items() for i, kernel in enumerate(kept)}
        named |= {f"sketch {i}": torch.from_numpy(row["sketch"]) for i, row in enumerate(self._sketches)}
        return note, named

    def resume(self, note: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
        """Go on from a checkpoint."""
        self.seconds, self.sketch_seconds = note["seconds"]
        self._sketches = [{**row, "sketch": tensors[f"sketch {i}"].numpy()} for i, row in enumerate(note["sketches"])]
        for kind, found in note["summaries"].items():
            # JSON has lists for tuples.
            taken = [{**summary, "eigenvalues": tuple(summary["eigenvalues"])} for summary in found]
            self._summaries[kind] = [KernelSummary(**summary) for summary in taken]
            self._grams[kind].resume(note["products"][kind], [tensors[f"{kind} {i}"] for i in range(len(found))])

    @property
    def sketch_rows(self) -> list[Row]:
        """Rows of `sketch` so far."""
        return self._sketches

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
            {"kernel": kind, "step": step, **summary.row, "velocity": float(speed)}
            for step, summary, speed in zip(steps, self._summaries[kind], speeds, strict=True)
        ]
        return {"cone": pairs, "kernel": single}
