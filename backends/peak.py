"""The most multiply-accumulates a second that this machine's dot-product instruction can do.

A loop of independent chains of one instruction, all operands in registers: no kernel that uses the
instruction for every product can be faster. Profiles state their layers' speed as a share of it.
"""

# TVMScript spells the type of a pointer as a call.
# pyright: reportInvalidTypeForm=false, reportMissingModuleSource=false

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

from tvm.script import tirx as T

from .target import Target

_ROUNDS = 8  # of all chains in one turn of the loop
_TURNS = 20_000  # of the loop in one call: about half a millisecond
_CALLS = 100
_CHAINS = 12  # more than two instructions a cycle of five cycles each, in 16 registers


@dataclass(frozen=True)
class Chain:
    """One step of a chain.

    Attributes:
        products: Multiply-accumulates of a 32-bit lane.
        extend: `extend(lanes, accumulator, operand)`: the next accumulator. It depends on the
            accumulator, or LLVM would move it out of the loop.
    """

    products: int
    extend: Callable[[int, Any, Any], Any]


def _vpdpbusd(lanes: int, accumulator: Any, operand: Any) -> Any:
    unsigned = T.reinterpret(f"uint8x{4 * lanes}", operand)
    signed = T.reinterpret(f"int8x{4 * lanes}", operand)
    name = f"llvm.x86.avx512.vpdpbusd.{32 * lanes}"
    return T.call_llvm_pure_intrin(f"int32x{lanes}", name, accumulator, unsigned, signed)


def _vpmaddwd(lanes: int, accumulator: Any, operand: Any) -> Any:
    """The multiplication alone: the additions that it needs find room beside it at best."""
    name = {8: "llvm.x86.avx2.pmadd.wd", 16: "llvm.x86.avx512.pmaddw.d.512"}[lanes]
    left, right = (T.reinterpret(f"int16x{2 * lanes}", v) for v in (accumulator, operand))
    return T.call_llvm_pure_intrin(f"int32x{lanes}", name, left, right)


CHAINS: dict[str, Chain] = {
    "vpdpbusd": Chain(products=4, extend=_vpdpbusd),
    "vpmaddwd": Chain(products=2, extend=_vpmaddwd),
}


def _build(chain: Chain, lanes: int) -> Any:
    """Return a kernel that reads and writes the accumulators, and reads one operand after them."""

    @T.prim_func
    def kernel(memory: T.handle, turns: T.int32) -> None:
        T.func_attr({"global_symbol": "planish_peak"})
        M = T.match_buffer(memory, ((_CHAINS + 1) * lanes,), "int32")  # noqa: N806
        accumulator = T.alloc_buffer((_CHAINS * lanes,), "int32")
        operand = T.alloc_buffer((lanes,), "int32")
        operand[T.ramp(0, 1, lanes)] = M[T.ramp(_CHAINS * lanes, 1, lanes)]
        for c in T.unroll(_CHAINS):
            accumulator[T.ramp(c * lanes, 1, lanes)] = M[T.ramp(c * lanes, 1, lanes)]
        for _ in T.serial(turns):
            for _round in T.unroll(_ROUNDS):
                for c in T.unroll(_CHAINS):
                    accumulator[T.ramp(c * lanes, 1, lanes)] = chain.extend(
                        lanes,
                        accumulator[T.ramp(c * lanes, 1, lanes)],
                        operand[T.ramp(0, 1, lanes)],
                    )
        for c in T.unroll(_CHAINS):
            M[T.ramp(c * lanes, 1, lanes)] = accumulator[T.ramp(c * lanes, 1, lanes)]

    return kernel


@cache
def instruction_peak(target: Target) -> float | None:
    """Return GMAC/s of one thread that does nothing but the target's dot-product instruction.

    None if no chain of the instruction is known. Takes about a second, once in a process.

    Raises:
        TargetError: There is no C++ compiler to link with.
    """
    import numpy as np
    import tvm

    chain = CHAINS.get(target.instruction)
    if chain is None:
        return None
    lanes = target.lanes
    module = tvm.IRModule({"planish_peak": _build(chain, lanes)})
    function = tvm.compile(module, target=tvm.target.Target(target.tvm_target))["planish_peak"]
    memory = tvm.runtime.tensor(np.ones((_CHAINS + 1) * lanes, np.int32))
    fastest = min(_nanoseconds(function, memory) for _ in range(_CALLS))
    return _TURNS * _ROUNDS * _CHAINS * lanes * chain.products / fastest


def _nanoseconds(function: Callable[..., Any], memory: Any) -> int:
    start = time.perf_counter_ns()
    function(memory, _TURNS)
    return time.perf_counter_ns() - start
