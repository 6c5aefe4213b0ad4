"""Artifacts: calling, saving, loading, other processors, machines without torch."""

import io
import subprocess
import sys
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from planish.backends import Artifact, Reference, build, load, matching
from planish.backends.container import write_container
from planish.ir import ArtifactError, DataError, Graph, HistoryEntry, OptionError, PlanishError

planish, aten = torch.ops.planish, torch.ops.aten


def small_graph(builder: Any, *, batch: int = 1, seed: int = 5) -> Graph:
    """A residual network with every kind of fusion, float in and float out."""
    b = builder(seed)
    x = b.input(torch.float32, (batch, 1, 12, 12))
    q = b.call(planish.quantize.default, x, 0.03, 9, 0, 255, torch.uint8)
    stem = b.conv(q, (16, 1, 3, 3), padding=(1, 1, 1, 1), x_zero=9)
    pooled = b.call(
        planish.max_pool2d_i8.default, stem, [3, 3], [2, 2], [1, 1, 1, 1], [1, 1], False
    )
    left = b.conv(pooled, (24, 16, 3, 3), padding=(1, 1, 1, 1), stride=(2, 2), x_zero=0)
    left = b.conv(left, (24, 24, 3, 3), padding=(1, 1, 1, 1), x_zero=3)
    right = b.conv(pooled, (24, 16, 1, 1), stride=(2, 2), x_zero=0)
    total = b.call(
        planish.add_i8.default, left, right, 100, 90, 9000, 12000, 14, 50, 0, 255, torch.uint8
    )
    total = b.call(planish.clamp_i8.default, total, 50, 200)
    spread = b.stored(torch.full((1, 1), 1 / 9.0))
    mean = b.call(
        planish.adaptive_avg_pool2d_i8.default, total, spread, [1, 1], 50, 0, 0, 255, torch.uint8
    )
    flat = b.call(aten.flatten.using_ints, mean, 1)
    weight = b.stored(b.values(torch.int8, (10, 24)))
    scale = b.stored(torch.full((10,), 0.004))
    logits = b.call(
        planish.linear_i8.default, flat, weight, None, scale, 0, 100, 0, 255, torch.uint8
    )
    return b.finish(b.call(planish.dequantize.default, logits, 0.1, 100))


def image(seed: int = 0, batch: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 2, (batch, 1, 12, 12)).astype(np.float32)


@pytest.fixture(scope="module")
def compiled(builder: Any) -> tuple[Graph, Artifact]:
    graph = small_graph(builder)
    return graph, build(graph, "x86-64-v3", history=[HistoryEntry("prune-channels", seconds=1.5)])


@pytest.mark.parametrize(
    ("target", "batch", "threads"),
    [("x86-64-v3", 1, 1), ("x86-64-v3", 3, 2), ("native", 3, 1), ("native", 1, 2)],
)
def test_network_equals_reference(builder: Any, target: str, batch: int, threads: int) -> None:
    graph = small_graph(builder, batch=batch)
    artifact, reference = build(graph, target, threads=threads), Reference(graph)
    for seed in range(20):
        x = image(seed, batch)
        assert np.array_equal(artifact(x)[0], reference(x)[0])


def test_calls_with_names_and_other_arrays(compiled: tuple[Graph, Artifact]) -> None:
    _, artifact = compiled
    x = image()
    expected = artifact(x)[0]
    frozen = x.copy()
    frozen.setflags(write=False)
    strided = np.repeat(x, 2, axis=3)[..., ::2]
    unaligned = np.frombuffer(b"\0" * 4 + x.tobytes(), np.float32, offset=4).reshape(x.shape)
    for same in (torch.from_numpy(x), frozen, strided, unaligned):
        assert np.array_equal(artifact(same)[0], expected)
    assert np.array_equal(artifact(x0=x)[0], expected)


@pytest.mark.parametrize(
    ("args", "kwargs", "message"),
    [
        ((), {}, "0 inputs given"),
        ((image(), image()), {}, "2 inputs given, the artifact takes 1"),
        ((), {"y": image()}, "no input is named 'y'"),
        ((image(),), {"x0": image()}, "given twice"),
        ((image().astype(np.float64),), {}, "is float64[1, 1, 12, 12], expected float32"),
        ((image(batch=2),), {}, "batch size was fixed at compile time"),
        ((image()[0],), {}, "is float32[1, 12, 12]"),
        (([1.0, 2.0],), {}, "is a list"),
    ],
)
def test_wrong_inputs(
    compiled: tuple[Graph, Artifact], args: tuple[Any, ...], kwargs: dict[str, Any], message: str
) -> None:
    with pytest.raises(DataError) as error:
        compiled[1](*args, **kwargs)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_save_and_load(compiled: tuple[Graph, Artifact], tmp_path: Path) -> None:
    _, artifact = compiled
    artifact.save(tmp_path / "model.planish")
    again = load(tmp_path / "model.planish")
    assert np.array_equal(again(image())[0], artifact(image())[0])
    assert [path.name for path in tmp_path.iterdir()] == ["model.planish"]
    assert again.manifest["history"] == [
        {
            "name": "prune-channels",
            "options": {},
            "seed": 0,
            "changed": False,
            "refused": [],
            "notes": {},
        }
    ]
    assert again.manifest["workspace_bytes"] > 0


def test_equal_graphs_give_equal_bytes(builder: Any, compiled: tuple[Graph, Artifact]) -> None:
    _, artifact = compiled
    history = [HistoryEntry("prune-channels", seconds=99.0)]
    assert build(small_graph(builder), "x86-64-v3", history=history).content == artifact.content


def test_a_folder_that_is_missing(compiled: tuple[Graph, Artifact], tmp_path: Path) -> None:
    with pytest.raises(PlanishError, match="nothing was written"):
        compiled[1].save(tmp_path / "missing" / "model.planish")


def test_a_full_disk_leaves_nothing(
    compiled: tuple[Graph, Artifact], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "model.planish"
    path.write_bytes(b"older")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(PlanishError, match="No space left"):
        compiled[1].save(path)
    assert path.read_bytes() == b"older"
    assert len(list(tmp_path.iterdir())) == 1


def test_another_processor(
    compiled: tuple[Graph, Artifact], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(matching, "cpu_flags", lambda: frozenset({"sse2", "avx"}))
    with pytest.raises(ArtifactError, match="for another CPU: 'x86-64-v3' needs abm, avx2"):
        Artifact(compiled[1].content)
    monkeypatch.setattr(matching, "machine", lambda: "aarch64")
    with pytest.raises(ArtifactError, match="'x86-64-v3' is for x86_64, this machine is aarch64"):
        Artifact(compiled[1].content)


def test_several_python_threads(compiled: tuple[Graph, Artifact]) -> None:
    _, artifact = compiled
    inputs = [image(seed) for seed in range(64)]
    expected = [artifact(x)[0] for x in inputs]
    with ThreadPoolExecutor(4) as pool:
        got = list(pool.map(lambda x: artifact(x)[0], inputs * 8))
    for i, result in enumerate(got):
        assert np.array_equal(result, expected[i % 64])


def test_integer_interface(builder: Any) -> None:
    graph = small_graph(builder)
    outer, inner = build(graph, "native"), build(graph, "native", io="integer")
    (taken,), (given,) = inner.inputs, inner.outputs
    assert (taken.dtype, taken.scale, taken.zero_point) == ("uint8", pytest.approx(0.03), 9)
    assert (given.dtype, given.scale, given.zero_point) == ("uint8", pytest.approx(0.1), 100)
    x = image()
    quantized = np.clip(np.rint(x / np.float32(0.03)) + 9, 0, 255).astype(np.uint8)
    result = inner(quantized)[0]
    assert result.dtype == np.uint8
    real = (result.astype(np.float32) - 100) * np.float32(0.1)
    assert np.array_equal(real, outer(x)[0])


def test_options(builder: Any) -> None:
    graph = small_graph(builder)
    with pytest.raises(OptionError, match="did you mean 'x86-64-v"):
        build(graph, "x86-64-v2")
    with pytest.raises(OptionError, match="threads is 0"):
        build(graph, "x86-64-v3", threads=0)
    with pytest.raises(OptionError, match="io is 'bits'"):
        build(graph, "x86-64-v3", io="bits")  # type: ignore[arg-type]


def test_bench_measures(compiled: tuple[Graph, Artifact]) -> None:
    timing = compiled[1].bench(calls=20)
    assert timing.calls == 20
    assert 0 < timing.minimum <= timing.median


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"calls": -1}, "calls must be a whole number of at least 1, not -1"),
        ({"calls": 0}, "calls must be"),
        ({"seconds": -1}, "seconds must be a positive number, not -1"),
        ({"seconds": float("nan")}, "seconds must be"),
        ({"warm_up": -1}, "warm_up must be a whole number of at least 0"),
    ],
)
def test_bench_refuses_what_it_can_t_measure(
    compiled: tuple[Graph, Artifact], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(OptionError, match=message):
        compiled[1].bench(**options)


def test_bench_checks_its_inputs(compiled: tuple[Graph, Artifact]) -> None:
    for call in (compiled[1].bench, compiled[1].prepared):
        with pytest.raises(DataError, match="2 inputs given, the artifact takes 1"):
            call(image(), image())
    assert compiled[1].bench(seconds=1e-9).calls == 1


RUN_ALONE = """
import sys
{block}
import numpy as np
from planish.backends import load
artifact = load(sys.argv[1])
x = np.load(sys.argv[2])
assert np.array_equal(artifact(x)[0], np.load(sys.argv[3]))
heavy = {{'torch', 'onnx', 'tvm'}} & {{name for name, module in sys.modules.items() if module}}
assert not heavy, heavy
"""


def run_alone(python: str, block: str, folder: Path, artifact: Artifact) -> None:
    artifact.save(folder / "model.planish")
    np.save(folder / "x.npy", image())
    np.save(folder / "y.npy", artifact(image())[0])
    files = [str(folder / name) for name in ("model.planish", "x.npy", "y.npy")]
    code = RUN_ALONE.format(block=block)
    done = subprocess.run([python, "-c", code, *files], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("threads", [1, 2])
def test_runs_where_torch_is_forbidden(builder: Any, tmp_path: Path, threads: int) -> None:
    block = "sys.modules['torch'] = sys.modules['onnx'] = None"
    artifact = build(small_graph(builder), "x86-64-v3", threads=threads)
    run_alone(sys.executable, block, tmp_path, artifact)


def test_loads_no_torch_where_it_is_installed(
    compiled: tuple[Graph, Artifact], tmp_path: Path
) -> None:
    run_alone(sys.executable, "", tmp_path, compiled[1])


@pytest.mark.needs_torch_free_env
def test_runs_without_torch(
    compiled: tuple[Graph, Artifact], tmp_path: Path, torchfree_python: Path
) -> None:
    run_alone(str(torchfree_python), "", tmp_path, compiled[1])


def test_large_parts_are_packed_quickly() -> None:
    large = {"weight": np.zeros(5 << 20, np.int8)}
    content = write_container({}, large, {"x86": ({}, b"code")})
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        kinds = {info.filename: info.compress_type for info in archive.infolist()}
    assert kinds["parameters.safetensors"] == zipfile.ZIP_DEFLATED
    assert kinds["x86/library.so"] == zipfile.ZIP_LZMA
