"""Vector: as many numbers as one register of the CPU holds, with their arithmetic.

The width follows from the number's type and the CPU (`cpu.vector_bits`), so kernels never name it.
Every operation is the IEEE one on each lane; nothing is contracted or reordered.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic, lower_builtin, models, register_model, type_callable

from . import cpu
from .pointer import Pointer

_FLOAT_NAMES = {32: "f32", 64: "f64"}
_MANTISSA_BITS = {32: 23, 64: 52}


class Vector(types.Type):
    """Numba type of one vector register of floats of type `dtype`."""

    def __init__(self, dtype: Any) -> None:
        self.dtype = dtype
        self.width = cpu.vector_bits() // dtype.bitwidth
        super().__init__(f"Vector({dtype} x {self.width})")


def llvm_vector(vector: Vector) -> ir.VectorType:
    """LLVM type of a vector."""
    item = ir.FloatType() if vector.dtype.bitwidth == 32 else ir.DoubleType()
    return ir.VectorType(item, vector.width)


@register_model(Vector)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, manager: Any, vector: Vector) -> None:
        super().__init__(manager, vector, llvm_vector(vector))


# Emitting, shared with the tile.


def emit_intrinsic(builder: Any, name: str, vector: Vector, arguments: list[Any]) -> Any:
    """Emit an LLVM intrinsic from vectors to a vector."""
    kind = llvm_vector(vector)
    function = cgutils.get_or_insert_function(
        builder.module,
        ir.FunctionType(kind, [kind] * len(arguments)),
        f"llvm.{name}.v{vector.width}{_FLOAT_NAMES[vector.dtype.bitwidth]}",
    )
    return builder.call(function, arguments)


def emit_load(builder: Any, vector: Vector, pointer: Any) -> Any:
    """Emit a load of one vector from any address of a number."""
    place = builder.bitcast(pointer, llvm_vector(vector).as_pointer())
    return builder.load(place, align=vector.dtype.bitwidth // 8)


def emit_store(builder: Any, vector: Vector, value: Any, pointer: Any) -> None:
    """Emit a store of one vector to any address of a number."""
    place = builder.bitcast(pointer, llvm_vector(vector).as_pointer())
    builder.store(value, place, align=vector.dtype.bitwidth // 8)


def emit_broadcast(builder: Any, vector: Vector, number: Any) -> Any:
    """Emit a vector with `number` in every lane."""
    kind = llvm_vector(vector)
    undefined = ir.Constant(kind, ir.Undefined)
    first = builder.insert_element(undefined, number, ir.Constant(ir.IntType(32), 0))
    lanes = ir.Constant(ir.VectorType(ir.IntType(32), vector.width), [0] * vector.width)
    return builder.shuffle_vector(first, undefined, lanes)


def _emit_first_lanes(builder: Any, vector: Vector, count: Any) -> Any:
    """Emit the mask of the first `count` lanes."""
    kind = ir.VectorType(ir.IntType(32), vector.width)
    undefined = ir.Constant(kind, ir.Undefined)
    count = builder.trunc(count, ir.IntType(32))
    first = builder.insert_element(undefined, count, ir.Constant(ir.IntType(32), 0))
    counts = builder.shuffle_vector(first, undefined, ir.Constant(kind, [0] * vector.width))
    return builder.icmp_signed("<", ir.Constant(kind, list(range(vector.width))), counts)


def _emit_masked(builder: Any, vector: Vector, pointer: Any) -> tuple[Any, str, Any]:
    """Emit what masked loads and stores share: the place, the name's ending, the alignment."""
    kind = llvm_vector(vector)
    place = builder.bitcast(pointer, kind.as_pointer())
    suffix = f"v{vector.width}{_FLOAT_NAMES[vector.dtype.bitwidth]}"
    alignment = ir.Constant(ir.IntType(32), vector.dtype.bitwidth // 8)
    return place, f"{suffix}.p0{suffix}", alignment


# Memory.


@intrinsic
def load(typing_context: Any, pointer: Any) -> Any:
    """Vector at `pointer`."""
    if not isinstance(pointer, Pointer):
        return None
    vector = Vector(pointer.dtype)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return emit_load(builder, vector, arguments[0])

    return vector(pointer), generate


@intrinsic
def store(typing_context: Any, vector: Any, pointer: Any) -> Any:
    """Write `vector` to `pointer`."""
    if not (isinstance(vector, Vector) and isinstance(pointer, Pointer)):
        return None

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        emit_store(builder, vector, *arguments)
        return context.get_dummy_value()

    return types.void(vector, pointer), generate


@intrinsic
def load_first(typing_context: Any, pointer: Any, count: Any) -> Any:
    """Vector of the first `count` numbers at `pointer`, zeros behind; reads no others."""
    if not isinstance(pointer, Pointer):
        return None
    vector = Vector(pointer.dtype)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        kind = llvm_vector(vector)
        mask = _emit_first_lanes(builder, vector, arguments[1])
        place, suffix, alignment = _emit_masked(builder, vector, arguments[0])
        function = cgutils.get_or_insert_function(
            builder.module,
            ir.FunctionType(kind, [place.type, alignment.type, mask.type, kind]),
            f"llvm.masked.load.{suffix}",
        )
        return builder.call(function, [place, alignment, mask, ir.Constant(kind, None)])

    return vector(pointer, types.int64), generate


@intrinsic
def store_first(typing_context: Any, vector: Any, pointer: Any, count: Any) -> Any:
    """Write the first `count` lanes of `vector` to `pointer`; touches no others."""
    if not (isinstance(vector, Vector) and isinstance(pointer, Pointer)):
        return None

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        mask = _emit_first_lanes(builder, vector, arguments[2])
        place, suffix, alignment = _emit_masked(builder, vector, arguments[1])
        function = cgutils.get_or_insert_function(
            builder.module,
            ir.FunctionType(
                ir.VoidType(), [llvm_vector(vector), place.type, alignment.type, mask.type]
            ),
            f"llvm.masked.store.{suffix}",
        )
        builder.call(function, [arguments[0], place, alignment, mask])
        return context.get_dummy_value()

    return types.void(vector, pointer, types.int64), generate


@intrinsic
def width(typing_context: Any, pointer: Any) -> Any:
    """Lanes of a vector of the numbers at `pointer`, a constant to the compiler."""
    if not isinstance(pointer, Pointer):
        return None
    count = Vector(pointer.dtype).width

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return ir.Constant(ir.IntType(64), count)

    return types.int64(pointer), generate


@intrinsic
def broadcast(typing_context: Any, like: Any, number: Any) -> Any:
    """Vector of the type of `like` (a vector, or a pointer to one) with `number` in every lane."""
    if not isinstance(like, (Vector, Pointer)):
        return None
    vector = like if isinstance(like, Vector) else Vector(like.dtype)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return emit_broadcast(builder, vector, arguments[1])

    return vector(like, vector.dtype), generate


# Arithmetic.


def _define_operator(function: Callable[..., Any], instruction: str) -> None:
    """Make a Python operator on two vectors the named LLVM instruction."""

    @type_callable(function)
    def type_operator(context: Any) -> Any:
        def typer(left: Any, right: Any) -> Any:
            return left if isinstance(left, Vector) and left == right else None

        return typer

    @lower_builtin(function, Vector, Vector)
    def lower_operator(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return getattr(builder, instruction)(*arguments)


_define_operator(operator.add, "fadd")
_define_operator(operator.sub, "fsub")
_define_operator(operator.mul, "fmul")


@type_callable(operator.neg)
def _type_negative(context: Any) -> Any:
    def typer(x: Any) -> Any:
        return x if isinstance(x, Vector) else None

    return typer


@lower_builtin(operator.neg, Vector)
def _lower_negative(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    return builder.fneg(*arguments)


@intrinsic
def fma(typing_context: Any, a: Any, b: Any, c: Any) -> Any:
    """Fused ``a * b + c``: one rounding."""
    if not (isinstance(a, Vector) and a == b == c):
        return None

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return emit_intrinsic(builder, "fma", a, list(arguments))

    return a(a, b, c), generate


@intrinsic
def reciprocal_estimate(typing_context: Any, x: Any) -> Any:
    """``1 / x`` to half of the digits or better, for normal numbers with a normal reciprocal.

    One step of Newton's iteration, or the residual of a quotient, gives the other half. AVX-512 has
    an estimate of 14 bits; elsewhere it is a division.
    """
    if not isinstance(x, Vector):
        return None
    estimated = cpu.vector_bits() == 512

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        kind, bits = llvm_vector(x), x.dtype.bitwidth
        one = ir.Constant(kind, [1.0] * x.width)
        if not estimated:
            return builder.fdiv(one, arguments[0])
        name = f"llvm.x86.avx512.rcp14.p{'s' if bits == 32 else 'd'}.512"
        mask = ir.IntType(x.width)
        function = cgutils.get_or_insert_function(
            builder.module, ir.FunctionType(kind, [kind, kind, mask]), name
        )
        every_lane = ir.Constant(mask, -1)
        value = builder.call(function, [arguments[0], ir.Constant(kind, None), every_lane])
        if bits == 64:
            negative = builder.fneg(arguments[0])
            rest = emit_intrinsic(builder, "fma", x, [negative, value, one])
            value = emit_intrinsic(builder, "fma", x, [value, rest, value])
        return value

    return x(x), generate


@intrinsic
def absolute(typing_context: Any, x: Any) -> Any:
    """``|x|``, NaN kept."""
    if not isinstance(x, Vector):
        return None

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return emit_intrinsic(builder, "fabs", x, list(arguments))

    return x(x), generate


@intrinsic
def copysign(typing_context: Any, magnitude: Any, sign: Any) -> Any:
    """`magnitude` with the sign bit of `sign`."""
    if not (isinstance(magnitude, Vector) and magnitude == sign):
        return None

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return emit_intrinsic(builder, "copysign", magnitude, list(arguments))

    return magnitude(magnitude, sign), generate


@intrinsic
def where_less(typing_context: Any, x: Any, bound: Any, then: Any, otherwise: Any) -> Any:
    """`then` in the lanes where ``x < bound``, `otherwise` elsewhere and where either is NaN."""
    if not (isinstance(x, Vector) and x == bound == then == otherwise):
        return None

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        left, right, taken, other = arguments
        return builder.select(builder.fcmp_ordered("<", left, right), taken, other)

    return x(x, bound, then, otherwise), generate


@intrinsic
def with_exponent(typing_context: Any, shifted: Any) -> Any:
    """The power of two whose exponent, as it is stored, stands in the low mantissa bits.

    Such a number comes from adding 1.5 * 2**(mantissa bits) and the bias of the exponent to n,
    which also rounds n to the nearest integer. The bits are taken as they are: unlike a conversion
    to an integer this is defined for NaN as well.
    """
    if not isinstance(shifted, Vector):
        return None
    bits = shifted.dtype.bitwidth

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        integers = ir.VectorType(ir.IntType(bits), shifted.width)
        number = builder.bitcast(arguments[0], integers)
        number = builder.shl(number, ir.Constant(integers, [_MANTISSA_BITS[bits]] * shifted.width))
        return builder.bitcast(number, llvm_vector(shifted))

    return shifted(shifted), generate


def constant(single: float, double: float) -> Any:
    """Intrinsic that repeats one number in the lanes of a vector like its argument.

    `single` serves float32, `double` float64: for numbers that depend on the precision.
    """

    @intrinsic
    def repeated(typing_context: Any, like: Any) -> Any:
        if not isinstance(like, Vector):
            return None
        number = single if like.dtype.bitwidth == 32 else double

        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            return ir.Constant(llvm_vector(like), [number] * like.width)

        return like(like), generate

    return repeated


def polynomial(single: tuple[float, ...], double: tuple[float, ...]) -> Any:
    """Intrinsic that evaluates a polynomial of its argument by Horner's rule, fused.

    Coefficients ascend; `single` serves float32, `double` float64.
    """

    @intrinsic
    def evaluated(typing_context: Any, x: Any) -> Any:
        if not isinstance(x, Vector):
            return None
        coefficients = single if x.dtype.bitwidth == 32 else double

        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            kind = llvm_vector(x)
            *lower, value = (ir.Constant(kind, [number] * x.width) for number in coefficients)
            for term in reversed(lower):
                value = emit_intrinsic(builder, "fma", x, [value, arguments[0], term])
            return value

        return x(x), generate

    return evaluated


def _emit_folded(builder: Any, vector: Vector, value: Any, combine: Callable[..., Any]) -> Any:
    """Emit a reduction by halves: lane i with lane i + n/2, the same order on every call."""
    count = vector.width
    undefined = ir.Constant(llvm_vector(vector), ir.Undefined)
    while count > 1:
        count //= 2
        indices = [lane + count if lane < count else lane for lane in range(vector.width)]
        upper = ir.Constant(ir.VectorType(ir.IntType(32), vector.width), indices)
        value = combine(value, builder.shuffle_vector(value, undefined, upper))
    return builder.extract_element(value, ir.Constant(ir.IntType(32), 0))


@intrinsic
def lane_sum(typing_context: Any, x: Any) -> Any:
    """Sum of the lanes, by halves."""
    if not isinstance(x, Vector):
        return None

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return _emit_folded(builder, x, arguments[0], builder.fadd)

    return x.dtype(x), generate


@intrinsic
def lane_maximum(typing_context: Any, x: Any) -> Any:
    """Largest lane; which lane wins where some are NaN is not defined."""
    if not isinstance(x, Vector):
        return None

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        def larger(left: Any, right: Any) -> Any:
            return builder.select(builder.fcmp_ordered(">", left, right), left, right)

        return _emit_folded(builder, x, arguments[0], larger)

    return x.dtype(x), generate
