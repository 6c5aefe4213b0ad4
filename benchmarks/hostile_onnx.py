"""Damaged and hostile ONNX files: `python -m benchmarks.hostile_onnx --count 2000`.

Small models are mutated, on the level of bytes and of the format: cut, flipped, cycles, huge sizes,
missing or wrong initializers, external data outside the folder, absurd attributes. Importing one
must give a graph or an error of planish's, in seconds and in bounded memory. A process of its own
imports them, under limits of the operating system; when it dies, the file that killed it is named.
"""

from __future__ import annotations

import faulthandler
import json
import multiprocessing
import random
import resource
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import onnx
import typer
from onnx import TensorProto, helper, numpy_helper
from rich.console import Console

MEMORY = 6 * 2**30  # bytes of address space above what torch itself maps
SECONDS = 20.0  # for one file; most take milliseconds
_HUGE = (2**31 - 1, 2**40, 2**62, -1, 0)


def seeds() -> list[onnx.ModelProto]:
    """Return small models that use much of the format: convolution, shapes, QDQ, recurrence."""
    return [_convolutional(), _shapes(), _quantized(), _recurrent()]


def _model(
    nodes: list[onnx.NodeProto], shape: list[Any], initializers: dict[str, np.ndarray[Any, Any]]
) -> onnx.ModelProto:
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    stored = [numpy_helper.from_array(value, name) for name, value in initializers.items()]
    graph = helper.make_graph(nodes, "seed", [x], [y], stored)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def _floats(*sizes: int) -> np.ndarray[Any, Any]:
    return np.random.default_rng(0).standard_normal(sizes).astype(np.float32)


def _convolutional() -> onnx.ModelProto:
    node = helper.make_node
    nodes = [
        node("Conv", ["x", "w", "b"], ["c"], "conv", pads=[1, 1, 1, 1], kernel_shape=[3, 3]),
        node("BatchNormalization", ["c", "g", "b", "b", "g"], ["n"], "bn"),
        node("Relu", ["n"], ["r"], "relu"),
        node("MaxPool", ["r"], ["p"], "pool", kernel_shape=[2, 2], strides=[2, 2]),
        node("Resize", ["p", "", "scales"], ["u"], "resize", mode="nearest"),
        node("Add", ["u", "r"], ["a"], "add"),
        node("GlobalAveragePool", ["a"], ["m"], "mean"),
        node("Flatten", ["m"], ["f"], "flatten"),
        node("Gemm", ["f", "v", "b"], ["y"], "gemm", transB=1),
    ]
    scales = np.array([1, 1, 2, 2], np.float32)
    stored = {"w": _floats(4, 3, 3, 3), "b": _floats(4), "g": np.ones(4, np.float32)}
    return _model(nodes, ["n", 3, 8, 8], {**stored, "v": _floats(4, 4), "scales": scales})


def _shapes() -> onnx.ModelProto:
    node = helper.make_node
    nodes = [
        node("Shape", ["x"], ["s"], "shape"),
        node("Gather", ["s", "zero"], ["n"], "gather", axis=0),
        node("Concat", ["n", "tail"], ["t"], "concat", axis=0),
        node("Reshape", ["x", "t"], ["r"], "reshape"),
        node("ConstantOfShape", ["sizes"], ["c"], "fill"),
        node("Expand", ["c", "wide"], ["e"], "expand"),
        node("Tile", ["e", "repeats"], ["i"], "tile"),
        node("MatMul", ["r", "i"], ["m"], "matmul"),
        node("Slice", ["m", "zero", "two", "one"], ["l"], "slice"),
        node("Pad", ["l", "pads"], ["d"], "pad"),
        node("Softmax", ["d"], ["y"], "softmax", axis=-1),
    ]
    integers = {
        **{"zero": [0], "one": [1], "two": [2], "tail": [-1], "sizes": [6, 1]},
        **{"wide": [6, 2], "repeats": [1, 2], "pads": [0, 1, 0, 1]},
    }
    stored = {name: np.array(value, np.int64) for name, value in integers.items()}
    return _model(nodes, ["n", 6], stored)


def _quantized() -> onnx.ModelProto:
    node = helper.make_node
    nodes = [
        node("QuantizeLinear", ["x", "sx", "zx"], ["q"], "q"),
        node("DequantizeLinear", ["q", "sx", "zx"], ["d"], "dq"),
        node("DequantizeLinear", ["w", "sw", "zw"], ["v"], "weight", axis=0),
        node("Conv", ["d", "v"], ["y"], "conv"),
    ]
    stored = {
        **{"sx": np.array(0.1, np.float32), "zx": np.array(128, np.uint8)},
        **{"w": np.ones((4, 3, 1, 1), np.int8), "sw": np.full(4, 0.02, np.float32)},
        "zw": np.zeros(4, np.int8),
    }
    return _model(nodes, [1, 3, 4, 4], stored)


def _recurrent() -> onnx.ModelProto:
    node = helper.make_node
    nodes = [
        node("LSTM", ["x", "w", "r"], ["s"], "lstm", hidden_size=3),
        node("Squeeze", ["s", "axis"], ["y"], "squeeze"),
    ]
    stored = {"w": _floats(1, 12, 4), "r": _floats(1, 12, 3), "axis": np.array([1], np.int64)}
    return _model(nodes, [5, 1, 4], stored)


def mutate(model: onnx.ModelProto, rng: random.Random) -> bytes:
    """Return the file of a mutated copy of a model."""
    if rng.random() < 0.35:
        return _mutate_bytes(model.SerializeToString(), rng)
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    for _ in range(rng.choice((1, 1, 2, 4))):
        rng.choice(_EDITS)(copy, rng)
    return copy.SerializeToString()


def _mutate_bytes(data: bytes, rng: random.Random) -> bytes:
    if rng.random() < 0.3:
        return data[: rng.randrange(len(data))]
    changed = bytearray(data)
    for _ in range(rng.choice((1, 2, 8, 64))):
        changed[rng.randrange(len(changed))] = rng.randrange(256)
    return bytes(changed)


def _node(model: onnx.ModelProto, rng: random.Random) -> onnx.NodeProto:
    return rng.choice(model.graph.node) if model.graph.node else model.graph.node.add()


def _stored(model: onnx.ModelProto, rng: random.Random) -> TensorProto:
    tensors = model.graph.initializer
    return rng.choice(tensors) if tensors else tensors.add()


def _cycle(model: onnx.ModelProto, rng: random.Random) -> None:
    node = _node(model, rng)
    if node.input and model.graph.node[-1].output:
        node.input[rng.randrange(len(node.input))] = model.graph.node[-1].output[0]


def _rewire(model: onnx.ModelProto, rng: random.Random) -> None:
    node, other = _node(model, rng), _node(model, rng)
    if node.input and other.output:
        node.input[rng.randrange(len(node.input))] = rng.choice((*other.output, "", "nowhere"))


def _drop_initializer(model: onnx.ModelProto, rng: random.Random) -> None:
    if model.graph.initializer:
        del model.graph.initializer[rng.randrange(len(model.graph.initializer))]


def _huge_initializer(model: onnx.ModelProto, rng: random.Random) -> None:
    tensor = _stored(model, rng)
    del tensor.dims[:]
    tensor.dims.extend(rng.choices(_HUGE, k=rng.randrange(1, 5)))


def _huge_values(model: onnx.ModelProto, rng: random.Random) -> None:
    tensor = _stored(model, rng)
    if tensor.data_type == TensorProto.INT64:
        values = np.array(rng.choices(_HUGE, k=max(1, len(tensor.raw_data) // 8)), np.int64)
        tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))


def _huge_input(model: onnx.ModelProto, rng: random.Random) -> None:
    dims = model.graph.input[0].type.tensor_type.shape.dim
    if dims:
        rng.choice(dims).dim_value = rng.choice(_HUGE)


def _retype(model: onnx.ModelProto, rng: random.Random) -> None:
    _stored(model, rng).data_type = rng.randrange(0, 30)


def _truncate_data(model: onnx.ModelProto, rng: random.Random) -> None:
    tensor = _stored(model, rng)
    tensor.raw_data = tensor.raw_data[: rng.randrange(len(tensor.raw_data) + 1)]


def _external(model: onnx.ModelProto, rng: random.Random) -> None:
    tensor = _stored(model, rng)
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    place = rng.choice(("/etc/passwd", "../../etc/passwd", "none.bin", "", "/dev/zero", "."))
    fields = {"location": place, "offset": str(rng.choice(_HUGE)), "length": str(rng.choice(_HUGE))}
    for key, value in fields.items():
        entry = tensor.external_data.add()
        entry.key, entry.value = key, value


def _absurd_attribute(model: onnx.ModelProto, rng: random.Random) -> None:
    node = _node(model, rng)
    names = [a.name for a in node.attribute] or ["axis", "kernel_shape", "group", "hidden_size"]
    name = rng.choice(names)
    value = rng.choice((list(_HUGE), 2**62, -(2**40), 1e38, "text", [0], [1.5, 2.5], b"\xff"))
    kept = [a for a in node.attribute if a.name != name]
    del node.attribute[:]
    node.attribute.extend([*kept, helper.make_attribute(name, value)])


def _rename_operator(model: onnx.ModelProto, rng: random.Random) -> None:
    names = ("If", "Loop", "Range", "Einsum", "TopK", "Resize", "NoSuch", "", "CumSum", "Split")
    _node(model, rng).op_type = rng.choice(names)


def _duplicate(model: onnx.ModelProto, rng: random.Random) -> None:
    model.graph.node.add().CopyFrom(_node(model, rng))


def _drop_inputs(model: onnx.ModelProto, rng: random.Random) -> None:
    node = _node(model, rng)
    del node.input[rng.randrange(len(node.input) + 1) :]


def _opset(model: onnx.ModelProto, rng: random.Random) -> None:
    if model.opset_import:
        model.opset_import[0].version = rng.choice((0, 1, 6, 9, 11, 13, 21, 99, -5))


_EDITS: tuple[Callable[[onnx.ModelProto, random.Random], None], ...] = (
    *(_cycle, _rewire, _drop_initializer, _huge_initializer, _huge_values, _huge_input),
    *(_retype, _truncate_data, _external, _absurd_attribute, _rename_operator, _duplicate),
    *(_drop_inputs, _opset),
)


def try_import(path: Path) -> tuple[str, str]:
    """Import a file; return what became of it, and the error's text if it is not planish's."""
    import planish
    from planish.ir.errors import PlanishError

    try:
        planish.capture(path)
    except PlanishError:
        return "refused", ""
    except Exception as error:  # noqa: BLE001  what is not planish's own is what is looked for
        return "bare error", f"{type(error).__name__}: {str(error)[:200]}"
    return "imported", ""


def _worker(channel: Connection, log: Path) -> None:
    """Import files as they are named, under limits; answer with JSON."""
    with log.open("w") as stream:
        faulthandler.enable(stream)
        import planish.capturing
        import planish.onnx_import  # noqa: F401  maps torch before memory is limited

        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, used + MEMORY))
        channel.send("ready")
        while True:
            try:
                name = channel.recv()
            except EOFError:  # nobody asks any more
                return
            began = time.perf_counter()
            outcome, text = try_import(Path(name))
            channel.send(json.dumps([outcome, text, time.perf_counter() - began]))


class Importer:
    """A process that imports files, started anew when one kills it or takes too long."""

    def __init__(self, folder: Path) -> None:
        self._log = folder / "fault.txt"
        self._start()

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._channel, theirs = context.Pipe()
        self._process = context.Process(target=_worker, args=(theirs, self._log), daemon=True)
        self._process.start()
        theirs.close()
        self._channel.recv()

    def __call__(self, path: Path) -> tuple[str, str, float]:
        """Return the outcome, the text of a bare error, and the seconds."""
        self._channel.send(str(path))
        try:
            if self._channel.poll(SECONDS):
                outcome, text, seconds = json.loads(self._channel.recv())
                return outcome, text, seconds
            self._process.kill()
            outcome = "too slow"
        except EOFError:
            outcome = "crash"
        self._process.join()
        text = self._log.read_text()[:500]
        self._start()
        return outcome, text, SECONDS


def main(
    count: Annotated[int, typer.Option(help="How many files.")] = 2000,
    seed: Annotated[int, typer.Option(help="Of the mutations.")] = 0,
    keep: Annotated[Path | None, typer.Option(help="Folder for files that broke it.")] = None,
) -> None:
    """Mutate, import, count."""
    console = Console(stderr=True)
    models = seeds()
    outcomes: Counter[str] = Counter()
    slowest = 0.0
    with tempfile.TemporaryDirectory() as folder:
        importer = Importer(Path(folder))
        for index in range(count):
            data = mutate(models[index % len(models)], random.Random(f"{seed}/{index}"))
            path = Path(folder) / "mutant.onnx"
            path.write_bytes(data)
            outcome, text, seconds = importer(path)
            outcomes[outcome] += 1
            slowest = max(slowest, seconds)
            if outcome not in ("refused", "imported"):
                console.print(f"{index}: {outcome} {text}", highlight=False, markup=False)
                if keep is not None:
                    (keep / f"{index}.onnx").write_bytes(data)
    console.print(f"{dict(outcomes)}, slowest {slowest:.1f} s")
    raise typer.Exit(0 if set(outcomes) <= {"refused", "imported"} else 1)


if __name__ == "__main__":
    typer.run(main)
