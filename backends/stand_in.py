"""Stand-ins: a processor's own instructions spelled in plain arithmetic.

A schedule for a processor that is not at hand can't run, but its loops, addresses and packed
weights can be checked: `stand_in(target)` compiles the same kernels, and every LLVM intrinsic of
x86 and of NEON becomes exact TensorIR arithmetic that any x86-64-v3 processor runs, only slower.
Results must equal the reference as those of the instruction itself do. What a stand-in says about
the instruction comes from Intel's Intrinsics Guide and the Arm Architecture Reference Manual; the
assembly shows that LLVM makes it of the intrinsic (see `machine_code`).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import tvm
import tvm_ffi
from tvm.script import tirx as T

from planish.ir.errors import TargetError

from .target import Target
from .targets.x86_64_v3 import FLAGS

_OWN = ("llvm.x86.", "llvm.aarch64.neon.")


def stand_in(target: Target) -> Target:
    """Return a target that makes the same choices and loops, without the processor's instructions.

    Args:
        target: For x86 or ARM.

    Raises:
        TargetError: It is a GPU.
    """
    if target.capability is not None:
        raise TargetError(
            f"target {target.name!r} is a GPU, and stand-ins are for processors",
            cure="run it in the emulator: backends.cuda.emulated.EmulatedNetwork",
        )
    return replace(target, stand_in=True, cpu_flags=FLAGS)


def plain_module(module: Any) -> Any:
    """Return a tvm.IRModule with every processor's own intrinsic spelled in plain arithmetic.

    Raises:
        TargetError: An intrinsic has no plain spelling here.
    """
    missing: set[str] = set()

    def plain_call(call: Any) -> Any:
        name = _intrinsic(call)
        prefix = next((prefix for prefix in _OWN if name.startswith(prefix)), None)
        if prefix is None:
            return call  # LLVM spells it on any processor
        for pattern, spell in PLAIN.items():
            if re.fullmatch(pattern, name.removeprefix(prefix)):
                return spell(*call.args[1:])
        missing.add(name)
        return call

    def plain_function(function: Any) -> Any:
        return function.with_body(tvm_ffi.structural_map(function.body, (tvm.ir.Call, plain_call)))

    plain = tvm.IRModule({name: plain_function(f) for name, f in module.functions.items()})
    if missing:  # an error would not get out of a callback as it is
        raise TargetError(
            f"no plain spelling of {', '.join(sorted(missing))}",
            cure="add one to backends/stand_in.py",
        )
    return plain


def _intrinsic(call: Any) -> str:
    """Return LLVM's name of the intrinsic that is called; "" for other calls."""
    if getattr(call.op, "name", "") != "tirx.call_llvm_pure_intrin":
        return ""
    return tvm.target.codegen.llvm_get_intrinsic_name(int(call.args[0]))


def _lanes(value: Any) -> int:
    return int(value.ty.dtype.lanes)


def _each(value: Any, step: int, first: int, dtype: str) -> Any:
    """Return every `step`-th lane from `first` on, widened to a dtype."""
    lanes = list(range(first, _lanes(value), step))
    return T.Cast(f"{dtype}x{len(lanes)}", T.Shuffle([value], lanes))


def _products(left: Any, right: Any, group: int) -> Any:
    """Return the int32 sum of each `group` neighbouring products."""
    terms = [_each(left, group, i, "int32") * _each(right, group, i, "int32") for i in range(group)]
    return sum(terms[1:], terms[0])


def _pair_products(left: Any, right: Any) -> Any:
    return _products(left, right, 2)


def _byte_dot(total: Any, left: Any, right: Any) -> Any:
    return total + _products(left, right, 4)


def _word_dot(total: Any, left: Any, right: Any) -> Any:
    return total + _products(left, right, 2)


def _clamped(value: Any, lowest: int, highest: int) -> Any:
    lanes = _lanes(value)
    least, most = (T.broadcast(T.int32(bound), lanes) for bound in (lowest, highest))
    return T.max(T.min(value, most), least)


def _saturated_pairs(left: Any, right: Any) -> Any:
    """Sums of two products, kept inside int16: what makes `vpmaddubsw` inexact in general."""
    total = _clamped(_products(left, right, 2), -(1 << 15), (1 << 15) - 1)
    return T.Cast(f"int16x{_lanes(total)}", total)


def _signed(left: Any, right: Any) -> Any:
    """`vpsign`: left, negated where right is negative, 0 where it is 0."""
    lanes, kind = _lanes(left), str(left.ty.dtype).partition("x")[0]
    wide, sign = T.Cast(f"int32x{lanes}", left), T.Cast(f"int32x{lanes}", right)
    return T.Cast(f"{kind}x{lanes}", wide * _clamped(sign, -1, 1))


def _packing(dtype: str, lowest: int, highest: int) -> Callable[[Any, Any], Any]:
    """`vpack`: both operands narrowed with saturation, in turns for each 128-bit part."""

    def pack(left: Any, right: Any) -> Any:
        count = _lanes(left)
        part = 128 // int(left.ty.dtype.bits)
        order = [
            side * count + first + i
            for first in range(0, count, part)
            for side in (0, 1)
            for i in range(part)
        ]
        both = T.Cast(f"int32x{2 * count}", T.Shuffle([left, right], order))
        return T.Cast(f"{dtype}x{2 * count}", _clamped(both, lowest, highest))

    return pack


def _long_products(left: Any, right: Any) -> Any:
    """`smull`: products in twice the bits of their operands."""
    dtype = f"int{2 * int(left.ty.dtype.bits)}"
    return _each(left, 1, 0, dtype) * _each(right, 1, 0, dtype)


def _neighbours_sums(left: Any, right: Any) -> Any:
    """`addp`: sums of neighbouring lanes, those of the left operand, then those of the right."""
    both = T.Shuffle([left, right], list(range(2 * _lanes(left))))
    return _each(both, 2, 0, "int32") + _each(both, 2, 1, "int32")


def _matrix_dot(total: Any, left: Any, right: Any) -> Any:
    """`usmmla`: both operands are two rows of eight; each row of one by each of the other."""

    def chosen(value: Any, rows: list[int], k: int) -> Any:
        return T.Cast("int32x4", T.Shuffle([value], [8 * row + k for row in rows]))

    terms = [chosen(left, [0, 0, 1, 1], k) * chosen(right, [0, 1, 0, 1], k) for k in range(8)]
    return sum(terms, total)


def _nearest(value: Any) -> Any:
    """`fcvtns`: what lies above int32 becomes its largest value; what lies below needs no help."""
    bounded = T.min(value, T.broadcast(T.float32(2147483520), _lanes(value)))
    return T.call_llvm_pure_intrin(f"int32x{_lanes(value)}", "llvm.lrint", bounded)


def _narrowing(dtype: str, lowest: int, highest: int) -> Callable[[Any], Any]:
    """`sqxtn`, `sqxtun`: one operand narrowed with saturation."""

    def narrow(value: Any) -> Any:
        wide = T.Cast(f"int32x{_lanes(value)}", value)
        return T.Cast(f"{dtype}x{_lanes(value)}", _clamped(wide, lowest, highest))

    return narrow


# The name after the prefix of _OWN as a pattern, and the spelling.
PLAIN: dict[str, Callable[..., Any]] = {
    r"(sse2|avx2)\.pmadd\.wd|avx512\.pmaddw\.d\.512": _pair_products,
    r"(ssse3\.pmadd\.ub\.sw\.128|avx2\.pmadd\.ub\.sw|avx512\.pmaddubs\.w\.512)": _saturated_pairs,
    r"avx512\.vpdpbusd\.\d+": _byte_dot,
    r"avx512\.vpdpwssd\.\d+": _word_dot,
    r"(ssse3|avx2)\.psign\.[bwd](\.128)?": _signed,
    r"\w+\.packssdw(\.\d+)?": _packing("int16", -(1 << 15), (1 << 15) - 1),
    r"\w+\.packusdw(\.\d+)?": _packing("uint16", 0, (1 << 16) - 1),
    r"\w+\.packsswb(\.\d+)?": _packing("int8", -128, 127),
    r"\w+\.packuswb(\.\d+)?": _packing("uint8", 0, 255),
    r"u?sdot(\..*)?": _byte_dot,
    r"usmmla(\..*)?": _matrix_dot,
    r"smull(\..*)?": _long_products,
    r"saddlp(\..*)?": lambda value: _each(value, 2, 0, "int32") + _each(value, 2, 1, "int32"),
    r"addp(\..*)?": _neighbours_sums,
    r"fcvtns(\..*)?": _nearest,
    r"sqxtn(\..*)?": _narrowing("int16", -(1 << 15), (1 << 15) - 1),
    r"sqxtun(\..*)?": _narrowing("uint8", 0, 255),
}
