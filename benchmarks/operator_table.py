"""The canonical set as a page: `python -m benchmarks.operator_table` (docs/operators.md)."""

from __future__ import annotations

from pathlib import Path

from planish.ir.files import write_beside
from planish.ir.level import Level
from planish.ir.ops import OperatorRow, Quantization, rows

PAGE = Path(__file__).parent.parent / "docs" / "operators.md"

_INTRODUCTION = """\
# The canonical set

Made by `python -m benchmarks.operator_table` from the operator table (`planish.ir.ops`). These
are the operators that a graph holds after `canonicalize`, wherever the model came from. What
torch.export or an ONNX file spells in another way becomes one of them:

- 1-D convolutions, pools and interpolations are 2-D ones of height 1 between `unsqueeze` and
  `squeeze`;
- attention is `mul`, `matmul`, `softmax`, `matmul`; a mask is added to the scores;
- LSTM, GRU and RNN are unrolled: one `linear` over all steps of the input, then step by step;
- `chunk`, `split`, `unbind` and `stack` are slices, selections and concatenations; in-place
  writes to views are concatenations of the written and the untouched part;
- `einsum`, `bmm`, `addmm` are `linear` where one operand is stored, else `matmul`;
- `instance_norm` is `group_norm`; variances, norms and weight normalization are written out;
- `sort` and `topk` are `argsort` and `gather`; indexing with computed positions and windows
  (`unfold`) are `index_select` between reshapes;
- what torch itself makes of others (`hardshrink`, `nan_to_num`, `any`, bicubic interpolation,
  `grid_sample` and more: `passes/canonical_rules/decompose.py` lists them) is made of those;
- layer norm, GELU, SiLU, Mish, hard-swish and hard-sigmoid that were written out get their
  names;
- what depends on no input is computed at capture; what depends on parameters alone stays, and
  trains, until the model is quantized.

An operator that is not here is an error that names it; [add-an-operator.md](add-an-operator.md)
says how to teach planish one. "In int8": an integer operator with a scale of its own, "moves"
those that keep the scale of what they read, "clamp" those that fuse into what they read,
"table" functions of one value (256 entries), "float" those that stay in float.

| operator | PyTorch | ONNX | channels | in int8 |
|---|---|---|---|---|
"""

_KINDS = {
    Quantization.INTEGER: "integer",
    Quantization.SAME_SCALE: "moves",
    Quantization.CLAMP: "clamp",
    Quantization.TABLE: "table",
    Quantization.FLOAT: "float",
}


def page() -> str:
    """Return the page as the table has it now."""
    known = [row for row in rows() if Level.CANONICAL in row.levels]
    return _INTRODUCTION + "".join(_line(row) for row in known)


def _line(row: OperatorRow) -> str:
    targets = ", ".join(f"`{str(target).removeprefix('aten.')}`" for target in row.targets)
    kind = _KINDS[row.quantization]
    if row.with_number is not None and row.with_number is not row.quantization:
        kind += f"; with a number: {_KINDS[row.with_number]}"
    return f"| {row.name} | {targets} | {', '.join(row.onnx)} | {row.channels.value} | {kind} |\n"


if __name__ == "__main__":
    write_beside(PAGE, page().encode())
