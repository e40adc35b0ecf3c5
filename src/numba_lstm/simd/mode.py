"""The floating-point mode: rounding, and what becomes of denormal numbers.

A host may have set its threads to round otherwise or to flush denormals to zero, and threads of a
pool inherit that from whoever started them. Results must not depend on it.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from .cpu import is_arm, is_x86

# Round to nearest, keep denormals. MXCSR of x86 also has a bit for every exception: all masked.
_MXCSR = 0x1F80
_FPCR = 0


def _emit_read(builder: Any) -> Any:
    """Emit the present mode, as 64 bits; 0 where this module knows no way to it."""
    wide = ir.IntType(64)
    if is_x86():
        place = cgutils.alloca_once(builder, ir.IntType(32))
        _emit_memory_call(builder, "llvm.x86.sse.stmxcsr", place)
        return builder.zext(builder.load(place), wide)
    if is_arm():
        kind = ir.FunctionType(wide, [])
        read = cgutils.get_or_insert_function(builder.module, kind, "llvm.aarch64.get.fpcr")
        return builder.call(read, [])
    return ir.Constant(wide, 0)


def _emit_write(builder: Any, mode: Any) -> None:
    """Emit the change to a mode that was read."""
    if is_x86():
        place = cgutils.alloca_once(builder, ir.IntType(32))
        builder.store(builder.trunc(mode, ir.IntType(32)), place)
        _emit_memory_call(builder, "llvm.x86.sse.ldmxcsr", place)
    elif is_arm():
        kind = ir.FunctionType(ir.VoidType(), [ir.IntType(64)])
        write = cgutils.get_or_insert_function(builder.module, kind, "llvm.aarch64.set.fpcr")
        builder.call(write, [mode])


def _emit_memory_call(builder: Any, name: str, place: Any) -> None:
    """Emit a call of an intrinsic that moves the mode from or to memory."""
    byte_pointer = ir.IntType(8).as_pointer()
    kind = ir.FunctionType(ir.VoidType(), [byte_pointer])
    function = cgutils.get_or_insert_function(builder.module, kind, name)
    builder.call(function, [builder.bitcast(place, byte_pointer)])


@intrinsic
def enter_default_mode(typing_context: Any) -> Any:
    """Round to nearest and keep denormals from here on; returns the mode before."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        before = _emit_read(builder)
        _emit_write(builder, ir.Constant(ir.IntType(64), _MXCSR if is_x86() else _FPCR))
        return before

    return types.int64(), generate


@intrinsic
def restore_mode(typing_context: Any, mode: Any) -> Any:
    """Go back to a mode that `enter_default_mode` returned."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        _emit_write(builder, arguments[0])
        return context.get_dummy_value()

    return types.void(types.int64), generate
