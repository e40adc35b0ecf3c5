"""Tile: rows of vectors that stay in registers while a product is summed into them.

A kernel's inner loop is a rank-1 update per term: a load for every vector of weights, a broadcast
for every row, and rows x vectors fused multiply-adds. The shape is part of the type, so LLVM keeps
the accumulators in registers as long as they fit (`cpu.tile_rows`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic, models, register_model

from . import cpu
from .pointer import Pointer, emit_fetch, offset
from .vector import Vector, emit_broadcast, emit_intrinsic, emit_load, emit_store, llvm_vector


class Tile(types.Type):
    """Numba type of `rows` x `vectors` vectors of floats of type `dtype`."""

    def __init__(self, dtype: Any, rows: int, vectors: int) -> None:
        self.vector = Vector(dtype)
        self.rows = rows
        self.vectors = vectors
        super().__init__(f"Tile({rows} x {vectors} x {self.vector})")


@register_model(Tile)
class _TileModel(models.PrimitiveModel):
    def __init__(self, manager: Any, tile: Tile) -> None:
        kind = ir.ArrayType(llvm_vector(tile.vector), tile.rows * tile.vectors)
        super().__init__(manager, tile, kind)


# Vectors in a row of a panel. Wider tiles take several panels side by side.
PANEL_VECTORS = 4


def _places(
    builder: Any, tile: Tile, pointer: Any, row_stride: Any, panel_stride: Any
) -> list[Any]:
    """Emit the address of every vector, row by row."""

    def times(stride: Any, count: int) -> Any:
        return builder.mul(stride, ir.Constant(ir.IntType(64), count))

    places = []
    for row in range(tile.rows):
        start = offset(builder, pointer, times(row_stride, row))
        for v in range(tile.vectors):
            panel, vector = divmod(v, PANEL_VECTORS)
            place = offset(builder, start, times(panel_stride, panel)) if panel else start
            places.append(offset(builder, place, vector * tile.vector.width))
    return places


def _emit_tile_load(context: Any, builder: Any, tile: Tile, *place: Any) -> Any:
    """Emit a load of all vectors; a place is a pointer and the strides of rows and panels."""
    value = ir.Constant(context.get_value_type(tile), ir.Undefined)
    for index, pointer in enumerate(_places(builder, tile, *place)):
        value = builder.insert_value(value, emit_load(builder, tile.vector, pointer), index)
    return value


def _emit_tile_accumulate(builder: Any, tile: Tile, value: Any, *place: Any) -> None:
    """Emit an addition of all vectors to what stands there, likewise."""
    for index, pointer in enumerate(_places(builder, tile, *place)):
        part = builder.extract_value(value, index)
        total = builder.fadd(emit_load(builder, tile.vector, pointer), part)
        emit_store(builder, tile.vector, total, pointer)


def _emit_tile_store(builder: Any, tile: Tile, value: Any, *place: Any) -> None:
    """Emit a store of all vectors, likewise."""
    for index, pointer in enumerate(_places(builder, tile, *place)):
        emit_store(builder, tile.vector, builder.extract_value(value, index), pointer)


@intrinsic
def tile_transposed(typing_context: Any, tile: Any) -> Any:
    """Square tile with rows and lanes exchanged.

    Blocks of 1, 2, 4, ... are exchanged across the diagonal of blocks twice as large (Eklundh
    1972): every lane takes its place after log2(W) shuffles.
    """
    if not (isinstance(tile, Tile) and tile.vectors == 1 and tile.rows == tile.vector.width):
        return None

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        lanes = range(tile.rows)
        vectors = [builder.extract_value(arguments[0], row) for row in lanes]

        def shuffled(row: int, other: int, picked: list[int]) -> Any:
            mask = ir.Constant(ir.VectorType(ir.IntType(32), tile.rows), picked)
            return builder.shuffle_vector(vectors[row], vectors[other], mask)

        size = 1
        while size < tile.rows:
            for row in (row for row in lanes if not row & size):
                other = row + size
                # Lanes of the second operand are counted on from those of the first.
                upper = [lane if not lane & size else tile.rows + lane - size for lane in lanes]
                lower = [lane + size if not lane & size else tile.rows + lane for lane in lanes]
                pair = shuffled(row, other, upper), shuffled(row, other, lower)
                vectors[row], vectors[other] = pair
            size *= 2
        value = ir.Constant(context.get_value_type(tile), ir.Undefined)
        for row, vector in enumerate(vectors):
            value = builder.insert_value(value, vector, row)
        return value

    return tile(tile), generate


# A tile of one vector in a row is in one panel.
_NO_PANELS = ir.Constant(ir.IntType(64), 0)


@intrinsic
def load_square_tile(typing_context: Any, pointer: Any, row_stride: Any) -> Any:
    """Tile with a row for each lane of a vector: those at `pointer`, so many numbers apart."""
    if not isinstance(pointer, Pointer):
        return None
    tile = Tile(pointer.dtype, Vector(pointer.dtype).width, 1)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return _emit_tile_load(context, builder, tile, *arguments, _NO_PANELS)

    return tile(pointer, types.int64), generate


@intrinsic
def store_square_tile(typing_context: Any, tile: Any, pointer: Any, row_stride: Any) -> Any:
    """Write `tile` to `pointer`, its rows so many numbers apart."""
    if not (isinstance(tile, Tile) and tile.vectors == 1 and isinstance(pointer, Pointer)):
        return None

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        _emit_tile_store(builder, tile, *arguments, _NO_PANELS)
        return context.get_dummy_value()

    return types.void(tile, pointer, types.int64), generate


@intrinsic
def add_square_tile(typing_context: Any, tile: Any, pointer: Any, row_stride: Any) -> Any:
    """Add `tile` to what stands at `pointer`, its rows so many numbers apart."""
    if not (isinstance(tile, Tile) and tile.vectors == 1 and isinstance(pointer, Pointer)):
        return None

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        _emit_tile_accumulate(builder, tile, *arguments, _NO_PANELS)
        return context.get_dummy_value()

    return types.void(tile, pointer, types.int64), generate


def _emit_rank1(
    builder: Any, tile: Tile, value: Any, weights: tuple[Any, Any], values: tuple[Any, Any]
) -> Any:
    """Emit a rank-1 update; weights and values are a place and a stride each."""
    none = ir.Constant(ir.IntType(64), 0)
    dtype = tile.vector.dtype
    weight_places = _places(builder, Tile(dtype, 1, tile.vectors), weights[0], none, weights[1])
    value_places = _places(builder, Tile(dtype, tile.rows, 1), values[0], values[1], none)

    def weight(v: int) -> Any:
        return emit_load(builder, tile.vector, weight_places[v])

    def repeated(row: int) -> Any:
        return emit_broadcast(builder, tile.vector, builder.load(value_places[row]))

    def add(row: int, v: int, number: Any, vector: Any) -> None:
        nonlocal value
        index = row * tile.vectors + v
        term = [vector, number, builder.extract_value(value, index)]
        total = emit_intrinsic(builder, "fma", tile.vector, term)
        value = builder.insert_value(value, total, index)

    # The shorter side is held in registers, the other passes through one.
    if tile.rows < tile.vectors:
        numbers = [repeated(row) for row in range(tile.rows)]
        for v in range(tile.vectors):
            vector = weight(v)
            for row, number in enumerate(numbers):
                add(row, v, number, vector)
    else:
        vectors = [weight(v) for v in range(tile.vectors)]
        for row in range(tile.rows):
            number = repeated(row)
            for v, vector in enumerate(vectors):
                add(row, v, number, vector)
    return value


class _Slots(NamedTuple):
    """Stack slots of a sum under way, which LLVM keeps in registers."""

    tile: Any
    values: Any
    weights: Any  # or what tells where they are
    asked: Any


class _Strides(NamedTuple):
    """Numbers from one thing to the next: integers or values of LLVM."""

    row: Any  # of the tile, among the values
    term: Any  # among the values
    panel: Any
    weights: Any  # from a term's to the next term's
    asked: Any
    beside: Any = None  # to a second line that is asked for, or 0; None if there is never one


class _PlacesOfTerm(NamedTuple):
    """From the slots of weights and of what is asked for to where both are for a term."""

    weights: Callable[[Any], Any]
    asked: Callable[[Any, Any], Any]


_THE_SLOTS_THEMSELVES = _PlacesOfTerm(lambda weights: weights, lambda weights, asked: asked)


def _emit_sum(
    builder: Any,
    tile: Tile,
    count: Any,
    slots: _Slots,
    strides: _Strides,
    asks: Any,
    places: _PlacesOfTerm = _THE_SLOTS_THEMSELVES,
) -> None:
    """Emit rank-1 updates for so many terms, and move on behind them; with requests if it `asks`.

    Two terms at a time, where the multiply-adds are what the loop waits for: some CPUs count and
    add addresses on the very ports that multiply. (6 x 4 on an Intel CPU: 0.91 of its peak one by
    one, 0.96 by twos, 0.97 by fours, which takes 0.4 s more to compile for all shapes.) Up to eight
    accumulators wait for one another instead.
    """

    def updates(terms: int) -> None:
        _emit_kept_loop(builder)
        with builder.if_then(asks):
            _emit_fetches(builder, terms, slots, strides, places)
        _emit_terms(builder, tile, terms, slots, strides, places)

    if tile.rows * tile.vectors <= 8:
        with cgutils.for_range(builder, count):
            updates(1)
        return
    one = ir.Constant(count.type, 1)
    with cgutils.for_range(builder, builder.lshr(count, one)):
        updates(2)
    with builder.if_then(builder.trunc(count, ir.IntType(1))):
        updates(1)


def _emit_fetches(
    builder: Any, terms: int, slots: _Slots, strides: _Strides, places: _PlacesOfTerm
) -> None:
    """Emit requests for what is asked for with some terms in a row.

    They stand behind a branch, since most sums ask for nothing: a term of 24 multiply-adds has 34
    instructions already, and a core that is shared with another thread begins half as many as
    alone. (With two requests a term, of a line that was there already, an Intel CPU went at 0.89 to
    1.0 of the speed that it has without, mostly at 0.97: 20 rows of 200 units, 32 rows of 96.)
    """
    weights, asked = builder.load(slots.weights), builder.load(slots.asked)
    lines = []
    for _ in range(terms):
        lines.append(places.asked(weights, asked))
        emit_fetch(builder, lines[-1])
        weights = offset(builder, weights, strides.weights)
        asked = offset(builder, asked, strides.asked)
    builder.store(asked, slots.asked)
    if strides.beside is not None:
        with builder.if_then(_is_set(builder, strides.beside)):
            for line in lines:
                emit_fetch(builder, offset(builder, line, strides.beside))


def _emit_terms(
    builder: Any, tile: Tile, terms: int, slots: _Slots, strides: _Strides, places: _PlacesOfTerm
) -> None:
    """Emit the rank-1 updates of some terms in a row."""
    moving = (slots.tile, slots.values, slots.weights)
    value, values, weights = (builder.load(slot) for slot in moving)
    for _ in range(terms):
        row = places.weights(weights)
        value = _emit_rank1(builder, tile, value, (row, strides.panel), (values, strides.row))
        values = offset(builder, values, strides.term)
        weights = offset(builder, weights, strides.weights)
    for slot, moved in zip(moving, (value, values, weights), strict=True):
        builder.store(moved, slot)


def _is_set(builder: Any, number: Any) -> Any:
    """Emit whether a number is not 0."""
    return builder.icmp_unsigned("!=", number, ir.Constant(number.type, 0))


def _heights(vectors: int) -> range:
    """Rows that tiles have: those that registers hold, and one row where it is several panels."""
    return range(1, 1 + (cpu.tile_rows(vectors) if vectors <= PANEL_VECTORS else 1))


def _emit_heights(
    builder: Any,
    dtype: Any,
    vectors: int,
    heights: range,
    height: Any,
    emit: Callable[[Tile], None],
) -> None:
    """Emit what `emit` does with the tile of a height known at run time only.

    For one that is not among `heights` nothing is done.
    """
    done = builder.append_basic_block("done")
    switch = builder.switch(height, done)
    for rows in heights:
        block = builder.append_basic_block(f"rows{rows}")
        switch.add_case(ir.Constant(height.type, rows), block)
        builder.position_at_end(block)
        emit(Tile(dtype, rows, vectors))
        builder.branch(done)
    builder.position_at_end(done)


def _fields(builder: Any, value: Any, count: int) -> list[Any]:
    """Emit the first fields of a tuple."""
    return [builder.extract_value(value, k) for k in range(count)]


@intrinsic(prefer_literal=True)
def tile_sum(typing_context: Any, vectors: Any, rows: Any, following: Any, task: Any) -> Any:
    """Sum products into a tile, from what stands at one place, and write it to another.

    Term by term, in ascending order::

        tile[r, v] += values[r * run.row] * weights[v]

    by fused multiply-adds, with a row of the panel for every term, and vectors beyond the four of
    a panel `panel_stride` numbers further on. Unless `step` is 0, with every term the cache line
    `asked` is fetched into L2, in tiles of four vectors the one `beside` it as well unless that is
    0, and the next ones are `step` numbers further on. There is code for every height of tile that
    the registers hold. Emitted for LLVM it is there in a tenth of the time (50 ms) that Numba takes
    to compile the same lines for one shape.

    `vectors` is a literal. `task` is ``(begin, count, run, second, weights, panel_stride, asked,
    step, beside, out)``: `begin` and `out` are tuples of a pointer, a number of no meaning here,
    and the strides of rows and panels; a run is a named tuple that begins with `values`, `row` and
    `count`, so many terms that stand one behind another, and ``following(run, second)`` is the
    next one.
    """
    begin, _, run, second, weights, *_, out = task
    if not (isinstance(vectors, types.IntegerLiteral) and isinstance(weights, Pointer)):
        return None
    call = following.get_call_type(typing_context, (run, second), {})

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        _, height, _, task_value = arguments
        parts = _fields(builder, task_value, len(task))
        begin_value, count, first_run, second_value, first_weights = parts[:5]
        panel_stride, first_asked, step, beside, out_value = parts[5:]
        next_run = context.get_function(following, call)

        def sum_products(tile: Tile) -> None:
            start, _, row_stride, between = _fields(builder, begin_value, len(begin))
            value = _emit_tile_load(context, builder, tile, start, row_stride, between)
            first_values = builder.extract_value(first_run, 0)
            initial = (value, first_values, first_weights, first_asked)
            slots = _Slots(*(cgutils.alloca_once_value(builder, number) for number in initial))
            run_slot = cgutils.alloca_once_value(builder, first_run)
            left_slot = cgutils.alloca_once_value(builder, count)
            one_run, another, end = (
                builder.append_basic_block(name) for name in ("run", "another", "end")
            )
            builder.branch(one_run)

            builder.position_at_end(one_run)
            _, row, length = _fields(builder, builder.load(run_slot), 3)
            left = builder.load(left_slot)
            terms = builder.select(builder.icmp_signed("<", length, left), length, left)
            width = min(tile.vectors, PANEL_VECTORS) * tile.vector.width
            second = beside if tile.vectors == PANEL_VECTORS else None
            strides = _Strides(row, 1, panel_stride, width, step, second)
            _emit_sum(builder, tile, terms, slots, strides, _is_set(builder, step))
            builder.store(builder.sub(left, terms), left_slot)
            builder.cbranch(builder.icmp_signed("<", terms, left), another, end)

            builder.position_at_end(another)
            run_value = next_run(builder, [builder.load(run_slot), second_value])
            builder.store(run_value, run_slot)
            builder.store(builder.extract_value(run_value, 0), slots.values)
            builder.branch(one_run)

            builder.position_at_end(end)
            target, _, row_stride, between = _fields(builder, out_value, len(out))
            value = builder.load(slots.tile)
            _emit_tile_store(builder, tile, value, target, row_stride, between)

        width = vectors.literal_value
        _emit_heights(builder, weights.dtype, width, _heights(width), height, sum_products)
        return context.get_dummy_value()

    return types.void(vectors, types.int64, following, task), generate


@intrinsic(prefer_literal=True)
def tile_outer_sum(typing_context: Any, vectors: Any, rows: Any, task: Any) -> Any:
    """Sum outer products into a tile of zeros, and write it to a place, or add it to what is there.

    Term by term, in ascending order::

        tile[r, v] += values[r] * weights[v]

    by fused multiply-adds. Values are so many numbers further on for every term; its weights begin
    at ``weights + numbers[k] * weights_row``. The cache line at ``asked + numbers[k] * asked_row +
    k * step`` is fetched into L2, unless both strides are 0. There is code for every height, as in
    `tile_sum`.

    `vectors` is a literal, of one panel. `task` is ``(count, values, values_row, numbers, weights,
    weights_row, asked, asked_row, step, added, out, out_row)``.
    """
    *_, out, _ = task
    if not (isinstance(vectors, types.IntegerLiteral) and isinstance(out, Pointer)):
        return None

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        _, height, task_value = arguments
        parts = _fields(builder, task_value, len(task))
        count, values, values_row, numbers, weights, weights_row = parts[:6]
        asked, asked_row, step, added, target, row = parts[6:]
        none, one = ir.Constant(ir.IntType(64), 0), ir.Constant(ir.IntType(64), 1)

        def sum_products(tile: Tile) -> None:
            zeros = ir.Constant(context.get_value_type(tile), None)
            initial = (zeros, values, numbers, asked)
            slots = _Slots(*(cgutils.alloca_once_value(builder, number) for number in initial))
            strides = _Strides(one, values_row, none, one, step)

            def row_at(start: Any, row: Any, place: Any) -> Any:
                return offset(builder, start, builder.mul(builder.load(place), row))

            places = _PlacesOfTerm(
                lambda place: row_at(weights, weights_row, place),
                lambda place, line: row_at(line, asked_row, place),
            )
            asks = _is_set(builder, builder.or_(asked_row, step))
            _emit_sum(builder, tile, count, slots, strides, asks, places)
            total = builder.load(slots.tile)
            with builder.if_else(builder.trunc(added, ir.IntType(1))) as (then, otherwise):
                with then:
                    _emit_tile_accumulate(builder, tile, total, target, row, none)
                with otherwise:
                    _emit_tile_store(builder, tile, total, target, row, none)

        width = vectors.literal_value
        _emit_heights(builder, out.dtype, width, _heights(width), height, sum_products)
        return context.get_dummy_value()

    return types.void(vectors, types.int64, task), generate


def _emit_kept_loop(builder: Any) -> None:
    """Emit what keeps LLVM from unrolling or duplicating the loop around it (`keep_loop`)."""
    nothing = ir.FunctionType(ir.VoidType(), [])
    builder.call(ir.InlineAsm(nothing, "", "", side_effect=True), [], attrs=("convergent",))


@intrinsic
def keep_loop(typing_context: Any) -> Any:
    """Keep the loops that this stands in as they are written: neither unrolled nor duplicated.

    LLVM unrolls a loop of rank-1 updates eight times and more, and copies the loops around it for
    every condition that does not change in them. Beyond two terms at a time that is hardly faster,
    but compiling takes four times as long. It leaves loops alone that hold a convergent call, and
    an empty piece of assembly can be one.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        _emit_kept_loop(builder)
        return context.get_dummy_value()

    return types.void(), generate
