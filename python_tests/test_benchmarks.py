"""What the benchmarks say of a run: forced instruction sets, and a user's speed. Nothing is timed here."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
AVX2 = {"JAA_EXT_CPU": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2"}
MACHINE = {
    "gpu": None,
    "cpu": "Some",
    "cpu_level": "avx2",
    "torch_threads": 2,
    "torch": "2",
    "load_at_start": 0,
}


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module


@pytest.fixture
def machine(load: Any, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    for name in AVX2:
        monkeypatch.delenv(name, raising=False)
    return load("machine")


def test_a_forced_run_is_named_so(machine: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    assert machine.forced() == "" and "forced" not in machine.processor()
    machine.require_name(Path("results/zen3-2cores.json"))
    with pytest.raises(
        ValueError, match=r"^forced/a-forced\.json: has forced in its name, but none of JAA_EXT"
    ):
        machine.require_name(Path("forced/a-forced.json"))
    for name, value in AVX2.items():
        monkeypatch.setenv(name, value)
    words = "JAA_EXT_CPU=avx2 ONEDNN_MAX_CPU_ISA=AVX2 ATEN_CPU_CAPABILITY=avx2"
    assert machine.forced() == machine.processor()["forced"] == words
    machine.require_name(Path("zen4-2cores-avx2-forced.json"))
    with pytest.raises(
        ValueError, match=rf"^zen4-2cores\.json: the name of results under {words} must have "
    ):
        machine.require_name(Path("zen4-2cores.json"))


def test_pytest_refuses_the_name_of_a_forced_run(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pytest", "-q", "--collect-only", BENCHMARKS / "bench_attention_maps.py"]
    done = subprocess.run(
        [*command, "-c", BENCHMARKS.parent / "pyproject.toml", f"--benchmark-json={tmp_path / 'plain.json'}"],
        env={**os.environ, **AVX2, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 4 and "must have forced in it" in done.stderr, done.stderr
    assert not (tmp_path / "plain.json").exists()


def test_a_report_says_what_was_forced_and_remarked(load: Any) -> None:
    report = load("report")
    run = {
        "op": "JAA-Net",
        "case": "batch 1",
        "direction": "inference",
        "dtype": "float32",
        "device": "cpu",
        "remark": "onnxruntime ran with AVX-512.",
        "formulations": [
            {"name": name, "median_ms": ms, "quartiles_ms": [ms, ms], "relative_error": 1e-7, "matched": True}
            for name, ms in (("jaa_ext", 50.0), ("onnxruntime", 75.0))
        ],
    }
    result = {
        "machine_info": {**MACHINE, "forced": "JAA_EXT_CPU=avx2"},
        "commit_info": {"id": "abc"},
        "benchmarks": [{"extra_info": run}, {"extra_info": {**run, "case": "batch 8"}}],
    }
    text = report.report(result)
    assert text.startswith("Some (avx2, forced by JAA_EXT_CPU=avx2), 2 threads")
    assert "75.0 ± 0.0 (1.50x)" in text and text.count("onnxruntime ran with AVX-512.") == 1
    del result["machine_info"]["forced"], run["remark"]
    assert report.report(result).startswith("Some (avx2), 2 threads")


def test_the_tables_of_results_are_those_of_their_files(load: Any) -> None:
    report = load("report")
    text = (BENCHMARKS / "RESULTS.md").read_text(encoding="utf-8")
    files = sorted((BENCHMARKS / "results").glob("*.json"))
    files += sorted((BENCHMARKS / "results" / "user").glob("*.json"))
    for path in files:
        name, tables = report.tables(path, json.loads(path.read_text(encoding="utf-8")))
        begin, end = (f"<!-- benchmarks {name}: {word} -->" for word in ("begin", "end"))
        assert f"{begin}\n{tables}{end}\n" in text, name
    assert text.count(": begin -->") == len(files)


def test_onnxruntime_in_the_rows_of_the_network(
    load: Any, machine: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Left out with the reason, where it is missing; with its own instruction set, where ours is forced."""
    bench = load("bench_jaanet")
    names, facts = [], {}

    class Notes:
        def add_call(self, name: str, call: Any, **options: Any) -> None:
            names.append(name)

        def run(self, *arguments: Any, **said: Any) -> None:
            facts.update(said)

    def missing(*arguments: Any) -> None:
        raise ImportError("exporting to ONNX needs onnx, which is not installed")

    with monkeypatch.context() as patch:
        patch.setattr(bench, "export_model", missing)
        bench.test_jaanet(bench.SMOKE_CASE, "float32", False, "cpu", Notes())
    assert names == ["jaa_ext", "authors' arrangement, float32"]
    assert facts["remark"] == "Without onnxruntime: exporting to ONNX needs onnx, which is not installed."
    assert bench.OnnxRuntime.at_level() == ("onnxruntime", {})
    monkeypatch.setenv("JAA_EXT_CPU", "avx2")
    monkeypatch.setattr("torch.cpu._is_avx512_supported", lambda: True)
    name, remark = bench.OnnxRuntime.at_level()
    assert name == "onnxruntime (AVX-512)" and "ran with AVX-512 all the same" in remark["remark"]


def test_two_builds_take_turns(load: Any) -> None:
    speed = load("user_speed")
    assert speed.plan(["faces", "demo", "video"], 2, 1) == [
        (0, "faces"), (0, "video"), (1, "faces"), (1, "video"), (0, "demo")
    ]  # fmt: skip
    assert [speed.turned(["this", "other"], turn)[0] for turn in range(3)] == ["this", "other", "this"]


def test_what_a_user_gets(
    load: Any, machine: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: Any
) -> None:
    """Medians and ratios; what was measured before it was cut short is in the file."""
    speed = load("user_speed")
    values = {  # of each pass
        "this": iter(
            [{"ms a face": 10.0}, {"ms a face": 30.0}, {"ms a face": 20.0}, {"s of jaa demo": 100.0}]
        ),
        "other": iter([{"ms a face": 50.0}, {"ms a face": 60.0}, {"ms a face": 40.0}]),
    }
    asked: list[str] = []

    def run(what: str, process: tuple[str, dict[str, str]], folder: str) -> dict[str, Any]:
        which = "other" if process[1].get("PYTHONPATH", "").startswith(str(tmp_path)) else "this"
        if what == "build":
            return {"commit": which[:4]}
        asked.append(f"{what} {which}")
        try:
            return next(values[which])
        except StopIteration:
            raise KeyboardInterrupt from None

    monkeypatch.setattr(speed, "run", run)
    out = tmp_path / "new" / "x.json"
    command = ["user_speed.py", "faces", "demo", "--against", str(tmp_path), "--out", str(out)]
    monkeypatch.setattr(sys, "argv", command)
    with pytest.raises(KeyboardInterrupt):
        speed.main()
    assert asked[:4] == ["faces this", "faces other", "faces other", "faces this"]
    result = json.loads(out.read_text())
    assert len(result["runs"]) == 7 and result["machine"]["torch_threads"] >= 1
    assert speed.table(result).splitlines()[2:] == [
        "|  | this (this) | other (othe) | times as fast |",
        "| --- | ---: | ---: | ---: |",
        "| ms a face | 20 | 50 | 2.50 |",
        "| s of jaa demo | 100 |  |  |",
    ]
    more = [
        {"what": "video", "build": name, "values": {"frames/s of video": rate, "MB at most": 900.0}}
        for name, rate in (("this", 30.0), ("other", 20.0))
    ]
    last = speed.table({**result, "runs": more}).splitlines()[-2:]
    assert last == ["| frames/s of video | 30 | 20 | 1.50 |", "| MB at most | 900 | 900 |  |"]


def test_a_build_is_a_folder_or_a_python(load: Any, tmp_path: Path) -> None:
    speed = load("user_speed")
    python, environment = speed.process_of(tmp_path)
    assert python == sys.executable and environment["PYTHONPATH"].split(os.pathsep)[0] == str(tmp_path)
    assert speed.process_of(Path(sys.executable))[0] == sys.executable
    here = speed.run("build", speed.process_of(None), str(tmp_path))
    assert "cpu" in here["devices"] and here["cpu_level"]


@pytest.mark.parametrize(
    "arguments, sentence",
    [
        (
            ["fasces"],
            "nothing is called 'fasces': there are faces, training, video, weights, rendering, demo",
        ),
        (["--against", "no/such"], "no/such: there is no such folder or Python"),
        (["--out", "avx2-forced.json"], "avx2-forced.json: has forced in its name, but none of"),
    ],
)
def test_mistakes_are_one_sentence(
    load: Any,
    machine: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Any,
    arguments: Any,
    sentence: str,
) -> None:
    monkeypatch.setattr(sys, "argv", ["user_speed.py", *arguments])
    with pytest.raises(SystemExit) as left:
        load("user_speed").main()
    assert left.value.code == 2 and sentence in capsys.readouterr().err
