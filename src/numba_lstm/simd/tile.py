"""Tile: rows of vectors that stay in registers while a product is summed into them.

A kernel's inner loop is one `tile_rank1` per term: a load for every vector of weights, a broadcast
for every row, and rows x vectors fused multiply-adds. The shape is part of the type, so LLVM keeps
the accumulators in registers as long as they fit (`cpu.tile_shape`).
"""

from __future__ import annotations

from typing import Any

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


def _emit_tile_store(builder: Any, tile: Tile, value: Any, *place: Any) -> None:
    """Emit a store of all vectors, likewise."""
    for index, pointer in enumerate(_places(builder, tile, *place)):
        emit_store(builder, tile.vector, builder.extract_value(value, index), pointer)


def _literal_tile(rows: Any, vectors: Any, pointer: Any) -> Tile | None:
    """Tile type named by two literal integers and the type behind a pointer."""
    if not (
        isinstance(rows, types.IntegerLiteral)
        and isinstance(vectors, types.IntegerLiteral)
        and isinstance(pointer, Pointer)
    ):
        return None
    return Tile(pointer.dtype, rows.literal_value, vectors.literal_value)


@intrinsic(prefer_literal=True)
def tile_zeros(typing_context: Any, rows: Any, vectors: Any, pointer: Any) -> Any:
    """Tile of zeros for the numbers behind `pointer`."""
    tile = _literal_tile(rows, vectors, pointer)
    if tile is None:
        return None

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return ir.Constant(context.get_value_type(tile), None)

    return tile(rows, vectors, pointer), generate


@intrinsic
def square_tile(typing_context: Any, pointer: Any) -> Any:
    """Tile of zeros for the numbers behind `pointer`: a vector for each lane of a vector."""
    if not isinstance(pointer, Pointer):
        return None
    tile = Tile(pointer.dtype, Vector(pointer.dtype).width, 1)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return ir.Constant(context.get_value_type(tile), None)

    return tile(pointer), generate


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


@intrinsic
def tile_load(
    typing_context: Any, shape: Any, pointer: Any, row_stride: Any, panel_stride: Any
) -> Any:
    """Tile of the shape of another, with the vectors at `pointer`.

    Rows are `row_stride` numbers apart: with a stride of 0 all of them are the same.
    """
    if not (isinstance(shape, Tile) and isinstance(pointer, Pointer)):
        return None

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return _emit_tile_load(context, builder, shape, *arguments[1:])

    return shape(shape, pointer, types.int64, types.int64), generate


@intrinsic
def panel_width(typing_context: Any, tile: Any) -> Any:
    """Numbers in a row of a panel that `tile` reads, a constant to the compiler."""
    if not isinstance(tile, Tile):
        return None
    count = min(tile.vectors, PANEL_VECTORS) * tile.vector.width

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return ir.Constant(ir.IntType(64), count)

    return types.int64(tile), generate


@intrinsic
def tile_store(
    typing_context: Any, tile: Any, pointer: Any, row_stride: Any, panel_stride: Any
) -> Any:
    """Write `tile` to `pointer`, its rows and panels so many numbers apart."""
    if not (isinstance(tile, Tile) and isinstance(pointer, Pointer)):
        return None

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        _emit_tile_store(builder, tile, *arguments)
        return context.get_dummy_value()

    return types.void(tile, pointer, types.int64, types.int64), generate


@intrinsic
def tile_accumulate(
    typing_context: Any, tile: Any, pointer: Any, row_stride: Any, panel_stride: Any
) -> Any:
    """Add `tile` to what stands at `pointer`, its rows and panels so many numbers apart."""
    if not (isinstance(tile, Tile) and isinstance(pointer, Pointer)):
        return None

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        for index, place in enumerate(_places(builder, tile, *arguments[1:])):
            part = builder.extract_value(arguments[0], index)
            total = builder.fadd(emit_load(builder, tile.vector, place), part)
            emit_store(builder, tile.vector, total, place)
        return context.get_dummy_value()

    return types.void(tile, pointer, types.int64, types.int64), generate


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


@intrinsic
def tile_rank1(
    typing_context: Any, tile: Any, weights: Any, panel_stride: Any, values: Any, row_stride: Any
) -> Any:
    """Tile with ``tile[r, v] + values[r * row_stride] * weights[v]``, fused, in every place.

    Vectors beyond those of one panel stand `panel_stride` numbers further on.
    """
    if not (
        isinstance(tile, Tile) and isinstance(weights, Pointer) and isinstance(values, Pointer)
    ):
        return None

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        value, *places = arguments
        return _emit_rank1(builder, tile, value, tuple(places[:2]), tuple(places[2:]))

    return tile(tile, weights, types.int64, values, types.int64), generate


@intrinsic(prefer_literal=True)
def tile_sum(typing_context: Any, vectors: Any, rows: Any, following: Any, task: Any) -> Any:
    """Sum products into a tile, from what stands at one place, and write it to another.

    Line by line::

        tile = tile_load(begin)
        repeat count times:
            fetch(asked), and go `step` numbers on
            term = following(term, second)
            tile = tile_rank1(tile, weights, panel_stride, term.values, term.row)
            go on to the next row of the panel
        tile_store(tile, out)

    There is a loop for every height of tile that the registers hold (`cpu.tile_rows`; one row where
    it is wider than a panel); for another nothing is done. As LLVM code it is emitted in a tenth of
    the time (50 ms) that Numba takes to compile these lines.

    `vectors` is a literal. ``following(term, second)`` gives the term after another, of the same
    type: a named tuple that begins with `values` and `row`, which lead to the next number of every
    row. `task` is ``(begin, count, term, second, weights, panel_stride, asked, step, out)``, where
    `begin` and `out` are tuples of a pointer, a number of no meaning here, and the strides of rows
    and panels.
    """
    begin, _, term, second, weights, *_, out = task
    if not (isinstance(vectors, types.IntegerLiteral) and isinstance(weights, Pointer)):
        return None
    across = vectors.literal_value
    tallest = cpu.tile_rows(across) if across <= PANEL_VECTORS else 1
    call = following.get_call_type(typing_context, (term, second), {})

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        def fields(value: Any, count: int) -> list[Any]:
            return [builder.extract_value(value, k) for k in range(count)]

        _, height, _, task_value = arguments
        parts = fields(task_value, len(task))
        begin_value, count, term_value, second_value, weight_place = parts[:5]
        panel_stride, asked_place, step, out_value = parts[5:]
        advance = context.get_function(following, call)

        def sum_products(tile: Tile) -> None:
            start, _, row_stride, between = fields(begin_value, len(begin))
            value = _emit_tile_load(context, builder, tile, start, row_stride, between)
            sums, current, weight, asked = (
                cgutils.alloca_once_value(builder, initial)
                for initial in (value, term_value, weight_place, asked_place)
            )
            width = min(tile.vectors, PANEL_VECTORS) * tile.vector.width
            with cgutils.for_range(builder, count):
                _emit_kept_loop(builder)
                place = builder.load(asked)
                emit_fetch(builder, place)
                builder.store(offset(builder, place, step), asked)
                now = advance(builder, [builder.load(current), second_value])
                builder.store(now, current)
                place, values = builder.load(weight), tuple(fields(now, 2))
                total = builder.load(sums)
                total = _emit_rank1(builder, tile, total, (place, panel_stride), values)
                builder.store(total, sums)
                builder.store(offset(builder, place, width), weight)
            target, _, row_stride, between = fields(out_value, len(out))
            _emit_tile_store(builder, tile, builder.load(sums), target, row_stride, between)

        done = builder.append_basic_block("summed")
        switch = builder.switch(height, done)
        for rows_of_tile in range(1, tallest + 1):
            block = builder.append_basic_block(f"rows{rows_of_tile}")
            switch.add_case(ir.Constant(height.type, rows_of_tile), block)
            builder.position_at_end(block)
            sum_products(Tile(weights.dtype, rows_of_tile, across))
            builder.branch(done)
        builder.position_at_end(done)
        return context.get_dummy_value()

    return types.void(vectors, types.int64, following, task), generate


def _emit_kept_loop(builder: Any) -> None:
    """Emit what keeps LLVM from unrolling or duplicating the loop around it (`keep_loop`)."""
    nothing = ir.FunctionType(ir.VoidType(), [])
    builder.call(ir.InlineAsm(nothing, "", "", side_effect=True), [], attrs=("convergent",))


@intrinsic
def keep_loop(typing_context: Any) -> Any:
    """Keep the loops that this stands in as they are written: neither unrolled nor duplicated.

    LLVM unrolls a loop of rank-1 updates eight times and more, and copies the loops around it for
    every condition that does not change in them. The speed is the same, since the multiply-adds
    fill the loop as it is, but compiling takes four times as long. It leaves loops alone that hold
    a convergent call, and an empty piece of assembly can be one.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        _emit_kept_loop(builder)
        return context.get_dummy_value()

    return types.void(), generate
