"""A trial's work cut into pieces that several workers do at once; each piece has its own reference and sentinels.

What is taken of the reference alone (learning curve, kernels, growth, linearised runs, the sentinel's row) belongs to
the first piece, as does whatever no other one claims: together the pieces are the trial, and no row is in two of them.
"""

from collections.abc import Sequence
from dataclasses import replace

from search_spaces import Fold
from search_spaces.fold import ALL, CELL, FORK_STEP
from twophase.children import Child, Todo, chunks, total_lane_steps
from twophase.config import Trial
from twophase.perturb import ORDER


def cut(todo: Todo, fold: Fold) -> list[Todo]:
    """Cut a todo into pieces, in order of their first fork."""
    groups = _groups(todo.trained, fold)
    if len(groups) <= 1:
        return [todo]
    later = {child for group in groups[1:] for child in group}
    first = replace(
        todo,
        measure_steps={child: steps for child, steps in todo.measure_steps.items() if child not in later},
        divergence=todo.divergence - later,
        sketch_steps={key: steps for key, steps in todo.sketch_steps.items() if key.child not in later},
    )
    return [first, *(_of_children(todo, set(group)) for group in groups[1:])]


def starts_of(trial: Trial, pieces: Sequence[Todo], lane_width: int) -> list[int]:
    """Decide whether pieces share the reference.

    Shared, the first piece keeps it at the step that each other one begins at, and those go on from there; else every
    piece trains its own from the start. Rows are the same; what costs fewer lane-steps is chosen, and of equals the
    latter, which waits for nothing.

    Returns:
        The step at which each piece takes up the reference; 0 for all where it isn't shared.
    """

    def cost(starts: Sequence[int]) -> int:
        both = zip(pieces, starts, strict=True)
        return sum(total_lane_steps(trial, piece, lane_width=lane_width, start=start) for piece, start in both)

    own = [0] * len(pieces)
    shared = [0, *(piece.first_step(trial.setting.num_steps) for piece in pieces[1:])]
    return shared if cost(shared) < cost(own) else own


def _groups(children: Sequence[Child], fold: Fold) -> list[list[Child]]:
    """Deal children out, in order of their fork; controls go with the largest magnitude of their fork step."""
    if fold.by == ALL:
        return [list(children)]
    if fold.by not in (FORK_STEP, CELL):
        return chunks(children, fold.most)
    largest: dict[int, float] = {}
    for child in children:
        largest[child.fork_step] = max(child.magnitude, largest.get(child.fork_step, 0.0))
    cells: dict[tuple[int, float], list[Child]] = {}
    for child in children:
        magnitude = largest[child.fork_step] if child.perturbation == ORDER else child.magnitude
        cells.setdefault((child.fork_step, -magnitude if fold.by == CELL else 0.0), []).append(child)
    return [cells[cell] for cell in sorted(cells)]


def _of_children(todo: Todo, mine: set[Child]) -> Todo:
    return Todo(
        {child: steps for child, steps in todo.measure_steps.items() if child in mine},
        todo.divergence & mine,
        is_trajectory_wanted=False,
        sketch_steps={key: steps for key, steps in todo.sketch_steps.items() if key.child in mine},
    )
