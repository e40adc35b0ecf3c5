"""Who computes what: serially, by rows of the batch, by directions, by stages or by units.

Rows of a batch are independent, so workers that share them out never wait; each reads all weights.
Two workers take a direction each, where there are two and L3 holds both. A few rows are too little
for several workers: they go through the stages of the layers as a wavefront, or share out the units
of every step, and wait for one another once in a step. So do those whose weights come from beyond
the L2 cache, of which each then reads its part only.
"""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass, replace

from .config import LSTMConfig
from .kernels.gradient_tasks import ROWS_IN_HALVES
from .kernels.tiling import WIDE, tiles_for_rows, widest_for_rows
from .simd import cpu

# A worker with less to do than this (some 8 us) costs more to wake than it saves. (With 0.6 and 0.4
# of it for one, two workers went at 0.83 and 0.82 of the speed of one through T10 B6 I32 H48.)
_OPERATIONS_PER_WORKER = 1_000_000
# Likewise a worker that has fewer numbers to go through once, 10 to 30 us: to pack, to update.
_NUMBERS_PER_WORKER = 1 << 16
# To read a byte of weights that L2 does not hold takes at least as long as so many operations. (One
# step of one row on an Intel CPU with L2 of 2 MiB, us by one worker and by two: weights of 1.1 MiB
# 36 and 39, 1.3 MiB 49 and 46, 1.5 MiB 56 and 40 or, both ways, 66 and 41, 2 MiB 92 and 40, 3 MiB
# 108 and 47, two layers of 2.1 MiB 74 and 39, four of 1.9 MiB 116 and 65.)
_OPERATIONS_PER_BYTE = 1.5
# A worker with no more rows than this waits for the weights rather than for the multiply-adds.
FEW_ROWS = 5
# Waiting for one another takes some 0.3 us a step. A worker reads as much as this from its L2 cache
# in a microsecond, which is the least that a step should save.
_BYTES_PER_WORKER_AND_STEP = 64 << 10
# Weights that come from beyond L2 are what a worker of no more rows than this waits for as well:
# three tiles use them as fast as they come. (H 650, two workers, GFLOP/s by rows and by units: B 12
# 152 and 237, B 20 227 and 287, B 32 269 and 307, B 64 315 and 313.)
_ROWS_OF_DISTANT_WEIGHTS = 18
# Where L3 is near, tiles of so many rows use weights of up to so many bytes as fast as they come,
# and workers with rows of their own do not wait for one another. (Two workers on two Zen 5 cores
# that share an L3, and on two that do not, GFLOP/s by rows and by units: B12 H200 438 414, 440 379;
# B24 H200 454 430, 442 395; B24 H384 452 433, 446 427; B32 H384 460 452, 458 448; in tall tiles,
# near one another, B16 H200 444 428, B28 H300 444 409, B16 H384 458 461. H 1024: 373 464.)
_ROWS_OF_A_FULL_TILE = 5
_BYTES_OF_NEAR_WEIGHTS = 5 << 20
# More than a few rows gain by projecting the inputs of several steps ahead where the weights are
# distant: the more the fewer the rows, and the more the inputs. (GFLOP/s step by step and ahead,
# one thread on Zen 5, from memory: B7 H1024 136 and 216, B16 198 and 225, B20 202 and 227, B24 233
# and 237, B10 I512 157 and 198, B20 I512 233 and 225; but from a near L3 B9 H300 233 and 230, B10
# H512 247 and 245, B20 241 and 235.)
_ROWS_PROJECTED = 20
# Training: B8 H650 196 and 206, B16 H1024 199 and 217, B32 227 and 230, B96 238 and 235.
_ROWS_PROJECTED_IN_TRAINING = 32
# Steps whose inputs are projected ahead at once, at most.
LONGEST_CHUNK = 96
# To look up what follows from a token takes as long as projecting so many inputs. (How much faster
# one thread is on Zen 5 where each row is projected once, in training and inference: 2048 tokens of
# 64 features, H 256, 64 rows 1.18 and 1.13, 512 rows 1.12 and 1.05, 1024 rows 1.05 and 0.97; of 8
# features, H 32, 512 rows 1.04 and 0.93; 700 tokens of 650 features, H 650, 50 rows 1.79 and 1.78,
# 350 rows 1.31 and 1.29.)
_INPUTS_PER_LOOK_UP = 40
# Chunks of steps that a sequence is cut into where stages follow one another, and the shortest: two
# tiles of steps whose inputs are projected.
_WAVES = 32
_SHORTEST_WAVE = 12
# Below these, waking a worker and waiting for one another take what stages gain. (GFLOP/s by one
# worker and by stages: T10 B1 I512 H80 129 and 158, H64 127 and 154, H48 122 and 129, T20 B1 H64 in
# two layers 84 and 94 or, on cores with an L3 each, 77; by rows and by stages: T11 B3 I512 H80 252
# and 272, T8 B3 I400 H48 192 and 184.)
_LEAST_GAIN_OF_STAGES = 1.2
_OPERATIONS_OF_A_WAVE = 1_300_000
_FEWEST_STEPS_OF_STAGES = 10
# The recurrent product of one row takes as long as that of twice as many inputs, projected with
# other steps, and so many more; that of several rows hardly longer than theirs.
_INPUTS_PER_RECURRENT_ROW = 60

# Two halves of a batch may have as many sums of weight gradients each: of float32 what an L2 cache
# of 1 MiB holds. Where weights come from beyond it, workers with few rows share out units anyhow.
_MOST_SUMS_OF_HALVES = 1 << 18

_A_DIRECTION_EACH = "the directions of a layer are independent: one a worker"
_ROWS_APART = "rows of the batch are independent: {} a worker"


class Sharing(enum.Enum):
    """What the workers of a call share out."""

    NOTHING = "none"
    ROWS = "rows"
    DIRECTIONS = "directions"
    STAGES = "stages"
    UNITS = "units"

    # There is one object of each: Enum's own takes a tenth of a microsecond of every call.
    __hash__ = object.__hash__


@dataclass(frozen=True)
class Split:
    """How a call is shared out.

    Attributes
    ----------
    sharing : Sharing
    workers : int
        At least 1.
    reason : str
        Why so.
    tasks : int
        Into which the units of a direction are cut, where workers share out directions or units, or
        stages: then for projecting the inputs. Else 0.
    wave : int
        Steps of a stage that a worker takes at once, where they share out stages: projecting the
        inputs of a layer, or its recurrence; else 0.
    copies : int
        Of the packed weights: one, or one for each worker.
    abreast : int
        Directions that are gone through at once, where workers share out units.
    """

    sharing: Sharing
    workers: int
    reason: str
    tasks: int = 0
    wave: int = 0
    copies: int = 1
    abreast: int = 1

    @property
    def by_rows(self) -> bool:
        """Whether every worker has rows of its own, and waits for nobody."""
        return self.tasks == 0

    def rows(self, B: int) -> int:
        """Rows of a worker, of so many in the batch."""
        return -(-B // self.workers) if self.by_rows else B


_TOO_LITTLE_TO_SHARE = Split(Sharing.NOTHING, 1, "a second worker would cost more than it saves")
_ONE_THREAD = Split(Sharing.NOTHING, 1, "one thread is allowed")
_ONE_ROW = Split(Sharing.NOTHING, 1, "one row is one worker's")


def inference_split(config: LSTMConfig, T: int, B: int, threads: int) -> Split:
    """Decide how inference is shared out.

    Parameters
    ----------
    config : LSTMConfig
    T, B : int
    threads : int
        Upper bound.

    Returns
    -------
    Split
    """
    operations = config.operations(T, B)
    work = max(operations, operations_of_reading(config)) if operations else 0
    if threads == 1 or not worth_sharing(work):
        return _not_shared(threads, work)
    most = min(threads, work // _OPERATIONS_PER_WORKER)
    split = _split_of_stages(config, T, B, min(most, operations // _OPERATIONS_OF_A_WAVE))
    if split is None:
        split = _split_of_units(config, T, B, most, training=False)
    if split is not None:
        return split
    workers = row_workers(threads, B, operations)
    if workers == 1:
        return _not_shared(threads, operations)
    reason = _ROWS_APART.format(-(-B // workers))
    # Of weights that L2 holds every worker reads its own: two that read the same slow one another
    # down (B64 H128 277 and 292 GFLOP/s, B20 H200 274 and 290).
    copies = workers if _held(config) else 1
    return Split(Sharing.ROWS, workers, reason, copies=copies)


def operations_of_reading(config: LSTMConfig) -> int:
    """Operations that take no longer than reading all weights, where L2 does not hold them; else 0.

    Those of all layers: what one has read is gone when the last one is through.

    Parameters
    ----------
    config : LSTMConfig

    Returns
    -------
    int
    """
    weights = config.operations(1, 1) // 2
    if weights < _cached(config) * 3 // 2:
        return 0
    return int(weights * config.numpy_dtype.itemsize * _OPERATIONS_PER_BYTE)


def _not_shared(threads: int, operations: int) -> Split:
    """What one worker does, and why no other one helps."""
    if not worth_sharing(operations):
        return _TOO_LITTLE_TO_SHARE
    return _ONE_THREAD if threads == 1 else _ONE_ROW


def _split_of_stages(config: LSTMConfig, T: int, B: int, most: int) -> Split | None:
    """Share out projections and recurrences, if that brings few rows more than sharing out units.

    L2 has to hold the recurrent weights, which every step reads; a chunk of steps reads those of
    the inputs. (Where they come from L3, two workers on cores that share it went through two layers
    of 256 units with 4 rows at 408 GFLOP/s, by units at 438; on cores with one each at 387 and
    356.) Larger batches have more from sharing out their rows (B20 H200 in two layers: 278 GFLOP/s
    by rows, 239 by stages), and so have in one layer those that can be halved.
    """
    H, L = config.hidden_size, config.num_layers
    few = 0 < B <= FEW_ROWS
    if most < 2 or config.directions == 2 or not few or T < _FEWEST_STEPS_OF_STAGES:
        return None
    if _held_numbers(config) < 4 * H * H:
        return None
    recurrence = _recurrence(config, B)
    # What is projected for a single layer always crosses from one core to another.
    handed_over = H / 2 / B if L == 1 else 0
    total = _work_of_row(config, B)
    longest_inputs = config.most_terms - H
    # Several workers project what is too much for one, each for its share of the units. (T64 B3
    # I512 H48 in two layers 287 and 362 GFLOP/s, T200 B1 I256 H32 222 and 268. Where it is not too
    # much they only look more often for what is next: T4096 B1 I1 H18 in three layers 62 and 54.)
    shares = min(most, _panels(config)) if longest_inputs > total / most else 1
    longest = max(longest_inputs / shares, recurrence + handed_over)
    workers = min(most, math.ceil(total / longest))
    if workers < 2:
        return None
    wave = T // _WAVES // _SHORTEST_WAVE * _SHORTEST_WAVE
    wave = max(_SHORTEST_WAVE, min(wave, LONGEST_CHUNK))
    waves = -(-T // wave)
    # Others wait while the first wave begins, or the last one ends; where they have shares of the
    # same projection, for the last recurrence only.
    idle = recurrence / total if L == 1 and shares > 1 else workers - 1
    gain = total / max(longest, total / workers) * waves / (waves + idle)
    inputs = total - L * recurrence
    by_units = total / (inputs / most + L * recurrence / _gain_of_units(config, H, most))
    if gain < max(_LEAST_GAIN_OF_STAGES, by_units, _gain_of_rows(config, B, most)):
        return None
    reason = f"projections and recurrences follow one another: {gain:.1f} workers' work"
    return Split(Sharing.STAGES, workers, reason, shares, wave)


def _recurrence(config: LSTMConfig, rows: int) -> float:
    """Inputs that take as long to project as a layer's recurrence does, for each of a few rows."""
    H = config.hidden_size
    return H + (H + _INPUTS_PER_RECURRENT_ROW) / rows


def _work_of_row(config: LSTMConfig, rows: int) -> float:
    """Inputs that take as long to project as all layers do, for each of a few rows."""
    L = config.num_layers
    return sum(map(config.inputs, range(L))) + L * _recurrence(config, rows)


def _gain_of_rows(config: LSTMConfig, B: int, workers: int) -> float:
    """How much faster workers are that share out a few rows.

    (By rows and by stages, one layer: T64 B3 I512 H48 272 and 335 GFLOP/s, T200 B3 I256 H32 265 and
    329, T64 B5 I512 H64 350 and 383, T200 B2 I300 H100 314 and 342, T500 B2 I128 H64 260 and 301,
    but T64 B4 I512 H48 365 and 351, T500 B4 I64 H64 289 and 277.)
    """
    rows = -(-B // workers)
    return B * _work_of_row(config, B) / (rows * _work_of_row(config, rows))


def _weights(config: LSTMConfig) -> int:
    """Numbers in the weights of a direction of a layer, of the largest layer."""
    return 4 * config.hidden_size * config.most_terms


def _bytes(config: LSTMConfig) -> int:
    """Bytes of the weights of a direction of the largest layer."""
    return _bytes_of_step(config, config.most_terms)


def _cached(config: LSTMConfig) -> int:
    """Numbers of a matrix that L2 keeps from one use to the next."""
    return cpu.cached_numbers(config.numpy_dtype.itemsize)


def _held_numbers(config: LSTMConfig) -> int:
    """Numbers of weights that L2 holds, with seven eighths of its room.

    Sharing out rows and units is as fast with 1.6 to 2 times of half of it (B16 H232 270 and 293
    GFLOP/s, B20 307 and 298).
    """
    return _cached(config) * 7 // 4


def _held(config: LSTMConfig) -> bool:
    """Whether L2 holds the weights of any direction of a layer."""
    return _weights(config) <= _held_numbers(config)


def _near(config: LSTMConfig, rows: int) -> bool:
    """Whether tiles of a worker's rows use weights from L3 as fast as they come."""
    tall = widest_for_rows(rows) != WIDE
    full = tall or rows // tiles_for_rows(rows, WIDE) >= _ROWS_OF_A_FULL_TILE
    return full and _bytes(config) <= _BYTES_OF_NEAR_WEIGHTS and cpu.level3_is_near()


def _panels(config: LSTMConfig) -> int:
    """Panels of W units of a direction."""
    return -(-config.hidden_size // cpu.lanes(config.numpy_dtype.itemsize))


def _bytes_of_step(config: LSTMConfig, terms: int) -> int:
    """Bytes of the weights for so many terms of the pre-activations of a direction of a layer."""
    return 4 * config.hidden_size * terms * config.numpy_dtype.itemsize


def _directions_abreast(config: LSTMConfig) -> int:
    """Directions of a layer that workers go through at once: one, where L3 does not hold two.

    (Two workers on Zen 5 that share an L3 of 32 MiB, GFLOP/s at once and one after the other: T20
    I256 H700, 21 MB, B5 432 and 412, B96 457 and 470; H850, 30 MB, B5 416 and 419, B20 437 and 454;
    H1024, 42 MB, B1 100 and 130, B5 219 and 416, B20 399 and 461, B32 430 and 465. Where each has
    an L3 H1024 B5 408 and 390, B20 443 and 453.)
    """
    _, _, level3 = cpu.cache_sizes()
    return config.directions if _bytes(config) * config.directions <= level3 else 1


def _gain_of_units(config: LSTMConfig, terms: int, workers: int) -> float:
    """How much faster workers read the weights of a step that they share out, waits included."""
    read = _bytes_of_step(config, terms)
    return read / (read / workers + _BYTES_PER_WORKER_AND_STEP)


def _split_of_units(
    config: LSTMConfig, T: int, B: int, most: int, *, training: bool
) -> Split | None:
    """Share out directions or units, if the weights are what so many workers at most wait for."""
    abreast = _directions_abreast(config)
    directions = Split(Sharing.DIRECTIONS, 2, _A_DIRECTION_EACH, 1, abreast=2)
    if B > 0 and abreast == 2 and most == 2:
        # Half of the rows each make lower tiles, and weights that both cores read come more slowly:
        # 207 and 286 GFLOP/s at B6 H128, 256 and 291 at B32 H128 in two layers, 330 at B96 H384.
        return directions
    if not 0 < B <= max(FEW_ROWS, most * _ROWS_OF_DISTANT_WEIGHTS):
        return None
    if B > FEW_ROWS and (_held(config) or _near(config, -(-B // most))):
        return None
    ahead = projects_ahead(config, T, B, training)
    read = abreast * _bytes_of_step(config, config.hidden_size if ahead else config.most_terms)
    panels = _panels(config)
    # As many in each direction: one more would leave a share to be taken after the others.
    workers = min(most, panels * abreast, read // _BYTES_PER_WORKER_AND_STEP) // abreast * abreast
    if abreast == 2 and workers <= 2:
        return directions
    if workers <= 1:
        return None
    reason = f"few rows read {read >> 10} KiB of weights a step: shared by units"
    if abreast < config.directions:
        reason += ", one direction after the other"
    # One task each: with more and smaller ones, four panels of units or fewer, whose number may be
    # odd, two workers were slower by 1 to 40 % (B1 H320 160 and 215 GFLOP/s, B1 H512 158 and 194).
    return Split(Sharing.UNITS, workers, reason, workers // abreast, abreast=abreast)


def training_split(config: LSTMConfig, T: int, B: int, threads: int) -> Split:
    """Decide how training is shared out.

    Parameters
    ----------
    config : LSTMConfig
    T, B : int
    threads : int
        Upper bound.

    Returns
    -------
    Split
        With all threads for workers: weight gradients have tasks of their own.
    """
    units = _split_of_units(config, T, B, threads, training=True) if threads > 1 else None
    if units is not None:
        # The recurrent product gives the gradients of four panels of units at once.
        tasks = min(units.tasks, -(-_panels(config) // 4))
        if tasks * units.abreast > 1:
            if tasks > 1:
                return replace(units, workers=threads, tasks=tasks)
            return Split(Sharing.DIRECTIONS, threads, _A_DIRECTION_EACH, 1, abreast=units.abreast)
    return Split(Sharing.ROWS, threads, _ROWS_APART.format(-(-B // threads)))


def groups_of_sums(config: LSTMConfig, T: int, B: int) -> int:
    """Decide whether the halves of a batch have sums of weight gradients of their own.

    Where two workers have half of the rows each, neither then reads what the other has written, nor
    has to take it away from the other's cache in the next pass. Neither the number of threads nor
    the sizes of the caches matter: they would change the bits.

    Parameters
    ----------
    config : LSTMConfig
    T, B : int

    Returns
    -------
    int
        2 if so, and the second sums are no more than the inputs of any layer; else 1.
    """
    # Two workers take a direction each.
    if config.bidirectional or B < ROWS_IN_HALVES or not worth_sharing(config.operations(T, B)):
        return 1
    inputs = [config.inputs(layer) for layer in range(config.num_layers)]
    sums = [4 * config.hidden_size * (1 + I + config.hidden_size) for I in inputs]
    few = all(count <= I * T * B for count, I in zip(sums, inputs, strict=True))
    return 2 if few and max(sums) <= _MOST_SUMS_OF_HALVES else 1


def piece_split(split: Split, directions: int, threads: int, B: int, operations: int) -> Split:
    """Decide how a piece of a training call is shared out.

    Parameters
    ----------
    split : Split
        Of the call.
    directions : int
        That the piece runs through.
    threads : int
        Upper bound.
    B : int
    operations : int
        Floating-point operations of the piece.

    Returns
    -------
    Split
    """
    abreast = min(directions, split.abreast)
    by_units = min(threads, split.tasks * abreast, operations // _OPERATIONS_PER_WORKER)
    by_units = by_units // abreast * abreast
    if by_units > 1:
        return replace(split, workers=by_units, abreast=abreast)
    workers = row_workers(threads, B, operations)
    if workers == 1:
        return _not_shared(threads, operations)
    return Split(Sharing.ROWS, workers, _ROWS_APART.format(-(-B // workers)))


def projects_ahead(config: LSTMConfig, steps: int, rows: int, training: bool) -> bool:
    """Whether the inputs of several steps are projected ahead of the recurrence.

    Cut from the rows of several steps, tiles are full, and the inputs' weights are read once for
    all of these. A few rows gain by that wherever the weights come from.

    Parameters
    ----------
    config : LSTMConfig
    steps, rows : int
        Steps at hand, of the call or of a segment, and rows of a worker.
    training : bool

    Returns
    -------
    bool
    """
    if steps <= 1:
        return False
    if rows <= FEW_ROWS:
        return True
    if not are_distant(config):
        return False
    if training:  # which keeps the gates anyway
        return rows <= _ROWS_PROJECTED_IN_TRAINING
    inputs_by_units = config.most_terms / config.hidden_size - 1
    return rows <= _ROWS_PROJECTED * min(1, inputs_by_units)


def are_distant(config: LSTMConfig) -> bool:
    """Whether weights come from beyond L2, and not from a near L3, of which they fill half at most.

    Then the tiles of a step ask for what comes next; from a near L3 it comes as fast without.
    (GFLOP/s asked for and not, one thread on Zen 5: B12 H512 239 and 251, B11 H650 227 and 244, B50
    H512 251 and 252; but B20 H1024, from memory, 249 and 234.) The weights of a whole layer count,
    also where workers share out its units: L3 is common to them.

    Parameters
    ----------
    config : LSTMConfig

    Returns
    -------
    bool
    """
    _, _, level3 = cpu.cache_sizes()
    near = cpu.level3_is_near() and 2 * _bytes(config) <= level3
    return _weights(config) > _cached(config) and not near


def projects_vocabulary(config: LSTMConfig, rows: int, tokens: int, *, training: bool) -> bool:
    """Whether the rows of a table are projected, and not the row of every token.

    Parameters
    ----------
    config : LSTMConfig
    rows : int
        That occur.
    tokens : int
    training : bool
        Whether the gradients of table and weights are wanted as well: two products more.

    Returns
    -------
    bool
        True if that saves time, and takes hardly more memory: inputs and their gradients, of every
        token, would have needed as much. A small table does not matter, nor one number more where
        training keeps six for every unit. Checkpoints do not matter either, though they take twice
        the room for a table: the bits must not depend on them.
    """
    products = 3 if training else 1
    saved = products * config.input_size * (tokens - rows)
    units = config.hidden_size * config.directions
    kept = rows * 4 * units
    spared = tokens * config.input_size * (2 if training else 1)
    if training:
        spared += tokens * units
    return saved > _INPUTS_PER_LOOK_UP * tokens and kept <= max(spared, _cached(config))


def worth_sharing(operations: int) -> bool:
    """Whether so many floating-point operations may be worth a second worker."""
    return operations >= 2 * _OPERATIONS_PER_WORKER


def _workers(most: int, work: int, least: int) -> int:
    """Workers, so many at most, each of whom has so much work at least unless it is alone."""
    return max(1, min(most, work // least))


def row_workers(threads: int, B: int, operations: int) -> int:
    """Workers among which the rows of a batch are shared out.

    Parameters
    ----------
    threads : int
        Upper bound.
    B : int
        Rows; a worker has at least one.
    operations : int
        Floating-point operations of the whole call.

    Returns
    -------
    int
        At least 1.
    """
    return _workers(min(threads, B), operations, _OPERATIONS_PER_WORKER)


def task_workers(threads: int, operations: int) -> int:
    """Workers among which independent tasks are shared out, whatever the batch.

    Parameters
    ----------
    threads : int
        Upper bound.
    operations : int
        Floating-point operations of all tasks.

    Returns
    -------
    int
        At least 1.
    """
    return _workers(threads, operations, _OPERATIONS_PER_WORKER)


def pass_workers(threads: int, numbers: int) -> int:
    """Workers among which one pass over arrays of so many numbers is shared out.

    Parameters
    ----------
    threads : int
        Upper bound.
    numbers : int

    Returns
    -------
    int
        At least 1.
    """
    return _workers(threads, numbers, _NUMBERS_PER_WORKER)
