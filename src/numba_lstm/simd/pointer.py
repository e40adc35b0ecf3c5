"""Pointer: the address of a number in an array, moved with ``+`` and ``-`` and read with ``[i]``.

Kernels pass addresses to one another: one machine word in place of the seven of an array, and no
reference counts. Nothing checks bounds: whoever makes the pointer knows the table of shapes.
"""

from __future__ import annotations

import operator
from typing import Any

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic, lower_builtin, models, register_model, type_callable


class Pointer(types.Type):
    """Numba type of the address of a number of type `dtype`."""

    def __init__(self, dtype: Any) -> None:
        self.dtype = dtype
        super().__init__(f"Pointer({dtype})")


@register_model(Pointer)
class _PointerModel(models.PrimitiveModel):
    def __init__(self, manager: Any, pointer: Pointer) -> None:
        item = manager.lookup(pointer.dtype).get_data_type()
        super().__init__(manager, pointer, item.as_pointer())


def offset(builder: Any, pointer: Any, count: Any) -> Any:
    """Emit the address `count` numbers behind `pointer`."""
    if isinstance(count, int):
        count = ir.Constant(ir.IntType(64), count)
    return builder.gep(pointer, [count])


@intrinsic
def address(typing_context: Any, array: Any, index: Any) -> Any:
    """Address of element `index` of a flat array."""
    if not (isinstance(array, types.Array) and array.ndim == 1 and array.layout == "C"):
        return None

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        data = context.make_array(signature.args[0])(context, builder, arguments[0]).data
        return offset(builder, data, arguments[1])

    return Pointer(array.dtype)(array, types.int64), generate


@intrinsic
def memory_at(typing_context: Any, place: Any) -> Any:
    """What stands at an address that is given as a number, for `numba.carray`."""
    if not isinstance(place, types.Integer):
        return None

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.inttoptr(arguments[0], context.get_value_type(types.voidptr))

    return types.voidptr(types.int64), generate


@intrinsic
def integers_at(typing_context: Any, place: Any) -> Any:
    """Pointer to int64 numbers, at an address that is given as a number."""
    if not isinstance(place, types.Integer):
        return None
    pointer = Pointer(types.int64)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.inttoptr(arguments[0], context.get_value_type(pointer))

    return pointer(types.int64), generate


@intrinsic
def as_integers(typing_context: Any, pointer: Any) -> Any:
    """Pointer to int64 numbers where others stand, or would."""
    if not isinstance(pointer, Pointer):
        return None
    integers = Pointer(types.int64)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], context.get_value_type(integers))

    return integers(pointer), generate


def emit_fetch(builder: Any, pointer: Any, to_write: bool = False) -> None:
    """Emit a request for the cache line at `pointer`; any address will do.

    It comes into L2; to be written into L1, or as if to be read, by CPUs that know no more.
    """
    number, byte_pointer = ir.IntType(32), ir.IntType(8).as_pointer()
    kind = ir.FunctionType(ir.VoidType(), [byte_pointer, number, number, number])
    prefetch = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
    access, into_l2, data = (ir.Constant(number, flag) for flag in (int(to_write), 2, 1))
    builder.call(prefetch, [builder.bitcast(pointer, byte_pointer), access, into_l2, data])


def _fetching(pointer: Any, to_write: bool) -> Any:
    """Signature, and what emits the code, of a request for the cache line at `pointer`."""
    if not isinstance(pointer, Pointer):
        return None

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        emit_fetch(builder, arguments[0], to_write)
        return context.get_dummy_value()

    return types.void(pointer), generate


@intrinsic
def fetch(typing_context: Any, pointer: Any) -> Any:
    """Ask for the cache line at an address, into L2; any address will do."""
    return _fetching(pointer, to_write=False)


@intrinsic
def fetch_to_write(typing_context: Any, pointer: Any) -> Any:
    """Ask for the cache line at an address, and that no other core keeps it; any will do."""
    return _fetching(pointer, to_write=True)


def _type_move(context: Any) -> Any:
    def typer(pointer: Any, count: Any) -> Any:
        if isinstance(pointer, Pointer) and isinstance(count, types.Integer):
            return pointer
        return None

    return typer


type_callable(operator.add)(_type_move)
type_callable(operator.sub)(_type_move)


@lower_builtin(operator.add, Pointer, types.Integer)
def _lower_advance(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    count = context.cast(builder, arguments[1], signature.args[1], types.int64)
    return offset(builder, arguments[0], count)


@lower_builtin(operator.sub, Pointer, types.Integer)
def _lower_retreat(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    count = context.cast(builder, arguments[1], signature.args[1], types.int64)
    return offset(builder, arguments[0], builder.neg(count))


@type_callable(operator.getitem)
def _type_read(context: Any) -> Any:
    def typer(pointer: Any, index: Any) -> Any:
        if isinstance(pointer, Pointer) and isinstance(index, types.Integer):
            return pointer.dtype
        return None

    return typer


@lower_builtin(operator.getitem, Pointer, types.Integer)
def _lower_read(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    index = context.cast(builder, arguments[1], signature.args[1], types.int64)
    return builder.load(offset(builder, arguments[0], index))


@type_callable(operator.setitem)
def _type_write(context: Any) -> Any:
    def typer(pointer: Any, index: Any, value: Any) -> Any:
        if isinstance(pointer, Pointer) and isinstance(index, types.Integer):
            return types.none
        return None

    return typer


@lower_builtin(operator.setitem, Pointer, types.Integer, types.Number)
def _lower_write(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    pointer, index, value = arguments
    index = context.cast(builder, index, signature.args[1], types.int64)
    value = context.cast(builder, value, signature.args[2], signature.args[0].dtype)
    builder.store(value, offset(builder, pointer, index))
    return context.get_dummy_value()
