"""How weight gradients are cut: their terms into blocks, panels and features into tasks."""

from __future__ import annotations

from typing import NamedTuple

from ..jit import inlined
from .gemm import WIDE, tiles_over
from .tables import BLOCK_TERMS, TASK_FEATURES, TASK_PANELS
from .workers import first_of_share


class BlockSize(NamedTuple):
    """Rows and steps of the terms that are added up from zero."""

    rows: int
    steps: int


def block_for_batch(batch):
    """Blocks that the terms (t, row) of weight gradients are cut into.

    They depend on the batch alone, and begin at multiples of their steps.
    """
    rows = max(1, min(batch, BLOCK_TERMS))
    return BlockSize(rows, BLOCK_TERMS // rows)


block_of_terms = inlined(block_for_batch)


class BlockTerms(NamedTuple):
    """Terms (t, row) of a block: some rows of some steps, in ascending order."""

    step: int
    steps: int
    row: int
    rows: int


@inlined
def blocks_at_hand(call):
    """Blocks of the steps at hand."""
    rows, steps = block_of_terms(call.batch)
    return (call.stop - call.start + steps - 1) // steps * ((call.batch + rows - 1) // rows)


@inlined
def block_at_hand(call, cell, later):
    """The block that comes so many later than the first one, on the way back."""
    rows, steps = block_of_terms(call.batch)
    beside = (call.batch + rows - 1) // rows
    number = later // beside
    row = (later - number * beside) * rows
    if cell.reverse == 0:
        number = (call.stop - call.start - 1) // steps - number
    step = call.start + number * steps
    return BlockTerms(step, min(steps, call.stop - step), row, min(rows, call.batch - row))


class Task(NamedTuple):
    """A task of weight gradients: some panels, and some features."""

    first_panel: int
    last_panel: int
    first: int
    last: int


@inlined
def tasks_of_gradients(panels, features, workers):
    """Tasks into which panels, and into which features, are cut: as many for each worker.

    Panels first, since dgates are what there is most of to read, but no single ones: their features
    would be copied for each.
    """
    panel_tasks = max((panels + TASK_PANELS - 1) // TASK_PANELS, min(workers, panels // 2))
    feature_tasks = (features + TASK_FEATURES - 1) // TASK_FEATURES
    while panel_tasks * feature_tasks % workers != 0:
        feature_tasks += 1
    return panel_tasks, min(feature_tasks, tiles_over(features, WIDE))


@inlined
def task_of_number(panels, panel_tasks, features, feature_tasks, number):
    """One of the tasks of a cell."""
    group = number // feature_tasks
    part = number - group * feature_tasks
    return Task(
        first_of_share(panels, group, panel_tasks),
        first_of_share(panels, group + 1, panel_tasks),
        first_of_share(features, part, feature_tasks),
        first_of_share(features, part + 1, feature_tasks),
    )


@inlined
def task_or_nothing(panels, panel_tasks, features, feature_tasks, number):
    """One of the tasks of a cell; one of no panels and no features behind the last."""
    if number >= panel_tasks * feature_tasks:
        return Task(0, 0, 0, 0)
    return task_of_number(panels, panel_tasks, features, feature_tasks, number)


@inlined
def rows_of_sums(task):
    """Rows of sums of a task: a row for each of its features in each of its panels."""
    return (task.last_panel - task.first_panel) * (task.last - task.first)


@inlined
def room_of_task(task, features):
    """Row where the room of a task begins, if each has as many rows as it needs, and no more.

    The tasks of the same panels share out the rows of these panels by their features, so no two
    rooms overlap.
    """
    across = task.last_panel - task.first_panel
    return task.first_panel * features + across * task.first


@inlined
def share_of_panels(task, features):
    """First panel, and the one behind the last, that are a task's alone.

    The tasks of the same panels share them out as they do their features.
    """
    across = task.last_panel - task.first_panel
    first = task.first_panel + first_of_share(across, task.first, features)
    return first, task.first_panel + first_of_share(across, task.last, features)
