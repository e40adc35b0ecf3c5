"""How weight gradients are cut: their terms into blocks, panels and features into tasks."""

from __future__ import annotations

from typing import NamedTuple

from ..jit import inlined
from .tables import BLOCK_TERMS, TASK_FEATURES, TASK_PANELS
from .tiling import WIDE, tiles_for_rows_compiled
from .workers import first_of_share

# Batches of so many rows and more may be cut in the middle: full tiles for two workers.
ROWS_IN_HALVES = 12


class Blocks(NamedTuple):
    """Blocks of terms that are added up from zero: so many steps each, so many side by side."""

    steps: int
    beside: int


def steps_for_batch(batch):
    """Steps at whose multiples blocks begin, whether halves of the batch have their own or not."""
    if batch < ROWS_IN_HALVES:
        return BLOCK_TERMS // max(1, batch)
    steps = max(1, BLOCK_TERMS // ((batch + 1) // 2))
    return steps if batch > BLOCK_TERMS // 2 else steps // 2 * 2


_steps_for_batch_compiled = inlined(steps_for_batch)


@inlined
def blocks_of_terms(call):
    """Blocks that the terms (t, row) of weight gradients are cut into.

    They depend on the batch and its groups alone. Those of a half have twice as many steps: a block
    of the whole batch is one stretch of memory, and read a little sooner (B32 H256 gradients at 239
    GFLOP/s, in blocks of halves at 236).
    """
    steps = _steps_for_batch_compiled(call.batch)
    if call.groups == 1 and call.batch >= ROWS_IN_HALVES:
        steps = max(1, steps // 2)
    rows = (call.batch + call.groups - 1) // call.groups
    return Blocks(steps, call.groups * ((rows + BLOCK_TERMS - 1) // BLOCK_TERMS))


class BlockTerms(NamedTuple):
    """Terms (t, row) of a block: some rows of some steps, in ascending order."""

    step: int
    steps: int
    row: int
    rows: int


@inlined
def block_at(call, step, stop, number):
    """One of the blocks side by side that begin at a step, of the steps before another one."""
    steps, beside = blocks_of_terms(call)
    row = first_of_share(call.batch, number, beside)
    rows = first_of_share(call.batch, number + 1, beside) - row
    return BlockTerms(step, min(steps, stop - step), row, rows)


@inlined
def blocks_of_group(call):
    """Blocks of a group of rows that stand side by side."""
    _, beside = blocks_of_terms(call)
    return beside // call.groups


@inlined
def blocks_at_hand(call):
    """Blocks of the steps at hand, in each group of rows."""
    steps, _ = blocks_of_terms(call)
    return (call.stop - call.start + steps - 1) // steps * blocks_of_group(call)


@inlined
def block_at_hand(call, cell, group, later):
    """The block of a group of rows that comes so many later than the first, on the way back."""
    steps, _ = blocks_of_terms(call)
    beside = blocks_of_group(call)
    number = later // beside
    aside = later - number * beside
    if cell.reverse == 0:
        number = (call.stop - call.start - 1) // steps - number
    return block_at(call, call.start + number * steps, call.stop, group * beside + aside)


class Task(NamedTuple):
    """A task of weight gradients: some panels, and some features."""

    first_panel: int
    last_panel: int
    first: int
    last: int


def _fewest_feature_tasks(features):
    """Tasks into which so many features are cut at least."""
    return (features + TASK_FEATURES - 1) // TASK_FEATURES


_fewest_feature_tasks_compiled = inlined(_fewest_feature_tasks)


def most_features_of_task(features):
    """Features that a task has at most of so many."""
    tasks = max(1, _fewest_feature_tasks(features))
    return (features + tasks - 1) // tasks


@inlined
def tasks_of_gradients(panels, features, workers):
    """Tasks into which panels, and into which features, are cut: as many for each worker.

    Panels first, since dgates are what there is most of to read, but no single ones: their features
    would be copied for each.
    """
    panel_tasks = max((panels + TASK_PANELS - 1) // TASK_PANELS, min(workers, panels // 2))
    feature_tasks = _fewest_feature_tasks_compiled(features)
    while panel_tasks * feature_tasks % workers != 0:
        feature_tasks += 1
    return panel_tasks, min(feature_tasks, tiles_for_rows_compiled(features, WIDE))


@inlined
def task_of_number(panels, panel_tasks, features, feature_tasks, number):
    """One of the tasks of a cell."""
    share = number // feature_tasks
    part = number - share * feature_tasks
    return Task(
        first_of_share(panels, share, panel_tasks),
        first_of_share(panels, share + 1, panel_tasks),
        first_of_share(features, part, feature_tasks),
        first_of_share(features, part + 1, feature_tasks),
    )


@inlined
def task_or_nothing(panels, panel_tasks, features, feature_tasks, number):
    """One of the tasks of a cell; one of no panels and no features behind the last."""
    if number >= panel_tasks * feature_tasks:
        return Task(0, 0, 0, 0)
    return task_of_number(panels, panel_tasks, features, feature_tasks, number)


class GroupTask(NamedTuple):
    """A task of the sums of a group of rows."""

    group: int
    task: Task


@inlined
def workers_of_group(call, workers):
    """Workers for whom the tasks of a group are cut: each has as many as any other."""
    return workers // call.groups if workers % call.groups == 0 else workers


@inlined
def task_of_groups(call, panels, panel_tasks, features, feature_tasks, number):
    """One of the tasks of a cell, of all groups in turn; behind the last one of nothing."""
    of_each = number // call.groups
    task = task_or_nothing(panels, panel_tasks, features, feature_tasks, of_each)
    return GroupTask(number - of_each * call.groups, task)


@inlined
def rows_of_sums(task):
    """Rows of sums of a task: a row for each of its features in each of its panels."""
    return (task.last_panel - task.first_panel) * (task.last - task.first)


@inlined
def first_row_of_task(task, features):
    """Row where the sums of a task begin, if each has as many rows as it needs, and no more.

    The tasks of the same panels share out the rows of these panels by their features, so no two
    overlap.
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
