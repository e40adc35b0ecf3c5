"""What workers tell one another: 64-bit counters in shared memory, and how to wait for them."""

from __future__ import annotations

import platform
from typing import Any

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from .cpu import is_arm, is_x86
from .pointer import Pointer

_WORD = ir.IntType(64)
_ARM_YIELD = 1


def _word_at(builder: Any, pointer: Any) -> Any:
    """Emit the address of the counter that stands at the address of a number."""
    return builder.bitcast(pointer, _WORD.as_pointer())


def _emit_call(builder: Any, name: str, result: Any, arguments: list[Any]) -> Any:
    """Emit a call of a function by its name."""
    kind = ir.FunctionType(result, [argument.type for argument in arguments])
    return builder.call(cgutils.get_or_insert_function(builder.module, kind, name), arguments)


@intrinsic
def claim(typing_context: Any, counter: Any, expected: Any) -> Any:
    """Raise a counter by 1 if it has the expected value; whether it was this call that did."""
    if not (isinstance(counter, Pointer) and isinstance(expected, types.Integer)):
        return None

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        place, value = _word_at(builder, arguments[0]), arguments[1]
        raised = builder.add(value, ir.Constant(_WORD, 1))
        # Reading first spares the others' cache lines where the claim is lost anyway.
        seen = builder.load_atomic(place, "monotonic", 8)
        before = builder.block
        with builder.if_then(builder.icmp_signed("==", seen, value)):
            result = builder.cmpxchg(place, value, raised, "acq_rel", "monotonic")
            won = builder.extract_value(result, 1)
            within = builder.block
        outcome = builder.phi(ir.IntType(1))
        outcome.add_incoming(ir.Constant(ir.IntType(1), 0), before)
        outcome.add_incoming(won, within)
        return outcome

    return types.boolean(counter, types.int64), generate


@intrinsic
def publish(typing_context: Any, counter: Any, value: Any) -> Any:
    """Set a counter that nobody else sets now; who sees it sees all that was written before."""
    if not (isinstance(counter, Pointer) and isinstance(value, types.Integer)):
        return None

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        place, number = _word_at(builder, arguments[0]), arguments[1]
        builder.store_atomic(number, place, "release", 8)
        return context.get_dummy_value()

    return types.void(counter, types.int64), generate


@intrinsic
def observed(typing_context: Any, counter: Any) -> Any:
    """Value of a counter, with all that was written before it was set to that."""
    if not isinstance(counter, Pointer):
        return None

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.load_atomic(_word_at(builder, arguments[0]), "acquire", 8)

    return types.int64(counter), generate


@intrinsic
def pause(typing_context: Any) -> Any:
    """Spend a moment of a waiting loop without disturbing the core's other thread."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        if is_x86():
            _emit_call(builder, "llvm.x86.sse2.pause", ir.VoidType(), [])
        elif is_arm():
            hint = ir.Constant(ir.IntType(32), _ARM_YIELD)
            _emit_call(builder, "llvm.aarch64.hint", ir.VoidType(), [hint])
        return context.get_dummy_value()

    return types.void(), generate


@intrinsic
def let_others_run(typing_context: Any) -> Any:
    """Give the core to another thread, where the system has a call for that."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        if platform.system() != "Windows":
            _emit_call(builder, "sched_yield", ir.IntType(32), [])
        return context.get_dummy_value()

    return types.void(), generate
