"""How functions that only kernels call are compiled: to LLVM code, once, and no further.

A kernel consists of some eighty such functions. Numba would make each of them callable from Python,
and run passes for Python that they are not written in: that took longer than generating the machine
code of the kernel.
"""

from __future__ import annotations

import functools
from typing import Any

import numba
from numba import _dynfunc
from numba.core.codegen import JITCodeLibrary
from numba.core.compiler import CompilerBase, DefaultPassBuilder
from numba.core.compiler_machinery import register_pass
from numba.core.lowering import Lower
from numba.core.typed_passes import NativeLowering

# Passes over Python that these functions are not written in: closures, branches on types and
# literals, expressions of whole arrays, `with`, exceptions. After each Numba finds anew how long
# every variable lives. (On an Intel CPU 6.1 s in place of 6.5 for a first inference.)
_NOT_NEEDED = {
    "dead_branch_prune",
    "find_literally",
    "generic_rewrites",
    "inline_closure_likes",
    "inline_overloads",
    "literal_unroll",
    "LiteralPropagation",
    "make_function_op_code_to_jit_function",
    "nopython_rewrites",
    "Rewrite dynamic raises",
    "rewrite_semantic_constants",
    "with_lifting",
}


class _LinkedLibrary(JITCodeLibrary):
    """LLVM code of a function by itself, which kernels link in beside that of all it calls.

    At every floor of calls Numba links in what is called, optimises the whole and generates machine
    code that nobody runs, and kernels were no faster for it. Seconds of a first inference and of a
    first training step: 5.2 and 8.6, without optimising and generating 3.9 and 6.1; in a slower
    hour 4.6 and 9.1, without linking 4.5 and 8.9; on a slower CPU, of an inference, 6.0, and 5.4
    where a function by itself is not optimised either.
    """

    def _optimize_functions(self, module: Any) -> None:
        module.data_layout = self._codegen._data_layout

    def finalize(self) -> None:
        self._finalize_dynamic_globals()
        for function in self._final_module.functions:
            # Otherwise each would be turned into this in a copy, made for every caller.
            if not function.is_declaration and function.linkage.name == "external":
                function.linkage = "linkonce_odr"
        self._shared_module = self._final_module
        self._finalized = True


@functools.cache
def _size_of(kind: Any, target: Any) -> int:
    """Bytes that a variable of LLVM's takes."""
    return int(kind.get_abi_size(target))


class _QuickLower(Lower):
    """Numba's translation of a function to LLVM code, which asks nothing twice.

    Numba has LLVM parse a module to learn the size of every variable, and finds types of operators
    again, up to three times, in case that there is other code for a constant. (On an Intel CPU a
    first inference took 5.1 s in place of 5.5.)
    """

    def __init__(self, *arguments: Any, **others: Any) -> None:
        super().__init__(*arguments, **others)
        target = self.context.target_data
        self.context.get_abi_sizeof = lambda kind: _size_of(kind, target)

    def lower_binop(self, resty: Any, expr: Any, op: Any) -> Any:
        context, builder = self.context, self.builder
        signature = self.fndesc.calltypes[expr]
        operands = [
            context.cast(builder, self.loadvar(operand.name), self.typeof(operand.name), kind)
            for operand, kind in zip((expr.lhs, expr.rhs), signature.args, strict=True)
        ]
        function = context.typing_context.resolve_value_type(op)
        result = context.get_function(function, signature)(builder, operands)
        return context.cast(builder, result, signature.return_type, resty)


@register_pass(mutates_CFG=False, analysis_only=False)
class _LinkedLowering(NativeLowering):
    """Lowers a function to LLVM code, and no further."""

    _name = "numba_lstm_linked_lowering"
    lowering_class = _QuickLower

    def run_pass(self, state: Any) -> bool:
        library = _LinkedLibrary(state.targetctx.codegen(), state.func_id.func_qualname)
        state.library = library
        state.flags.no_compile = True
        super().run_pass(state)
        lowered = state["cr"]
        # Numba knows a function by its wrapper for Python: this one has none, and is never called.
        module, name = lowered.fndesc.lookup_module(), state.func_id.func_name
        wrapper = _dynfunc.make_function(module, name, "", 0, lowered.env, (library,))
        libraries = list(dict.fromkeys((library, *library._linking_libraries)))
        state.targetctx.insert_user_function(wrapper, lowered.fndesc, libraries)
        state["cr"] = lowered._replace(cfunc=wrapper)
        return True


class _RememberedTypes:
    """Numba's typing context, which remembers what operators and built-in functions return.

    For every sum of two integers Numba asks some twenty templates, those of arrays among them: one
    half of what finding types took. (A first inference took 4.9 s in place of 5.4.)
    """

    def __init__(self, context: Any) -> None:
        self._context = context
        self._known: dict[tuple[Any, ...], Any] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._context, name)

    def resolve_function_type(self, function: Any, arguments: Any, keywords: Any) -> Any:
        """Signature with which a function is called, or None if there is none."""
        own = isinstance(function, numba.types.Type) and type(function) is not numba.types.Function
        if own or keywords:  # compiled functions have a memory of their own
            return self._context.resolve_function_type(function, arguments, keywords)
        call = (function, *arguments)
        signature = self._known.get(call)
        if signature is None:
            signature = self._context.resolve_function_type(function, arguments, keywords)
            self._known[call] = signature
        return signature


_remembered: dict[Any, _RememberedTypes] = {}


class LinkedCompiler(CompilerBase):
    """Numba's compiler of functions that only kernels call."""

    def __init__(self, typing_context: Any, *others: Any) -> None:
        super().__init__(typing_context, *others)
        types = _remembered.setdefault(typing_context, _RememberedTypes(typing_context))
        self.state.typingctx = types

    def define_pipelines(self) -> list[Any]:
        """Numba's passes, those left out that are not needed, and our own lowering."""
        passes = DefaultPassBuilder.define_nopython_pipeline(self.state)
        passes.passes = [
            (_LinkedLowering if kind is NativeLowering else kind, text)
            for kind, text in passes.passes
            if kind.name() not in _NOT_NEEDED
        ]
        passes.finalize()
        return [passes]
