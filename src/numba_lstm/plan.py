"""What a call will run, and why."""

from __future__ import annotations

from dataclasses import dataclass

from .config import LSTMConfig
from .kernels.tiling import panels_for_rows, tiles_for_rows
from .layout import Layout
from .packed_layout import packed_layout
from .schedule import Sharing, piece_split, task_workers
from .simd import cpu


@dataclass(frozen=True)
class Plan:
    """What one call of an LSTM will run.

    Parameters
    ----------
    tile : tuple of (int, int)
        Rows and vectors of the accumulators of the recurrent product.
    vector_bits : int
        Width of a vector.
    threads : int
        Workers that share out the call, at most: its steps, or in training its weight gradients.
    split : str
        "none", "rows" of the batch, "directions", "stages" (projections of inputs and recurrences)
        or "units" of every step.
    reason : str
        Why it is shared out so.
    steps_ahead : int
        Steps whose inputs are projected ahead of the recurrence at once; 0 where every step does
        both.
    workspace_nbytes, packed_nbytes : int
        Bytes of working memory, and of the packed weights.
    """

    tile: tuple[int, int]
    vector_bits: int
    threads: int
    split: str
    reason: str
    steps_ahead: int
    workspace_nbytes: int
    packed_nbytes: int

    def __str__(self) -> str:
        rows, vectors = self.tile
        ahead = (
            f"inputs of {self.steps_ahead} steps ahead of the recurrence"
            if self.steps_ahead
            else "inputs and recurrence together, step by step"
        )
        return "\n".join(
            [
                f"tile       {rows} x {vectors} vectors of {self.vector_bits} bits",
                f"threads    {self.threads}",
                f"split      {self.split}: {self.reason}",
                f"inputs     {ahead}",
                f"workspace  {self.workspace_nbytes:,} bytes",
                f"weights    {self.packed_nbytes:,} bytes, packed",
            ]
        )


def plan_of(config: LSTMConfig, laid_out: Layout, threads: int) -> Plan:
    """Say what a call will run.

    Parameters
    ----------
    config : LSTMConfig
    laid_out : Layout
    threads : int
        Upper bound.

    Returns
    -------
    Plan
    """
    itemsize = config.numpy_dtype.itemsize
    B, training = int(laid_out.call["batch"][0]), laid_out.training
    pieces, split = laid_out.pieces, laid_out.split
    if training:
        operations = pieces.most_operations(B)
        split = piece_split(split, pieces.directions, threads, B, operations)
    reason, workers = split.reason, split.workers
    if training and (summing := task_workers(threads, operations)) > workers:
        reason += f"; {summing} sum up the weight gradients"
        workers = summing
    rows = split.rows(B)
    packed = packed_layout(config, laid_out.form)
    widest = int(packed.cells["widest"][0])
    height = max(1, -(-rows // max(1, tiles_for_rows(rows, widest))))
    whole_panels = int(packed.cells["gate_columns"][0]) // (4 * cpu.lanes(itemsize))
    tasks = split.tasks if split.sharing is Sharing.UNITS else 1
    panels = panels_for_rows(height, -(-whole_panels // tasks))
    return Plan(
        tile=(height, widest * panels),
        vector_bits=cpu.vector_bits(),
        threads=workers,
        split=split.sharing.value,
        reason=reason,
        steps_ahead=int(laid_out.call["wave"][0] or laid_out.call["ahead"][0]),
        workspace_nbytes=laid_out.size * itemsize,
        packed_nbytes=(split.copies * packed.forward_size + training * packed.backward_size)
        * itemsize,
    )
