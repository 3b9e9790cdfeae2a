"""Loading the kernels: what is said where they are missing or of another torch."""

import subprocess
import sys
import textwrap
from pathlib import Path

import jaa_ext

PACKAGE = Path(jaa_ext.__file__).parent


def run_copy(
    tmp_path: Path, build_info: dict[str, str] | None, code: str
) -> subprocess.CompletedProcess[str]:
    """Run code with a copy of the package whose build information says something else."""
    copy = tmp_path / "jaa_ext"
    copy.mkdir()
    for file in PACKAGE.iterdir():
        if file.name not in ("_build_info.py", "__pycache__"):
            (copy / file.name).symlink_to(file)
    if build_info is not None:
        (copy / "_build_info.py").write_text(f"BUILD_INFO = {build_info!r}\n")
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        cwd=tmp_path,
        env={"PYTHONPATH": str(tmp_path), "PATH": ""},
        capture_output=True,
        text=True,
    )


INFO = {"torch": "2.13.0", "cuda": "", "archs": "", "compiler": "c++", "note": ""}
USE = """
    import torch
    from jaa_ext import ops
    for _ in range(2):
        print(ops.region_conv2d(torch.ones(1, 1, 2, 2), torch.ones(1, 1, 1, 1, 1, 1)).sum().item())
    ones = torch.ones(1, 1, 3, 3)
    print(ops.conv3x3(ones, ones, padding=0, filters=ops.conv3x3_filters(ones)).sum().item())
    for name in ("attention_maps", "softmax_dice_loss"):
        assert getattr(ops, name)
    loss = ops.softmax_dice_loss(torch.zeros(1, 2, 3), torch.ones(1, 3))
    print(ops.attention_maps(torch.ones(1, 49, 2), [1, 12], image_size=8, map_size=8).shape[1])
"""


def test_without_a_compiler_the_reference_runs_and_says_so_once(tmp_path: Path) -> None:
    run = run_copy(tmp_path, {**INFO, "compiler": "", "note": "no C++ compiler was found"}, USE)
    assert run.returncode == 0, run.stderr
    assert run.stdout.split() == ["4.0", "4.0", "9.0", "2"]
    assert run.stderr.count("without compiled kernels (no C++ compiler was found)") == 1


def test_a_source_tree_runs_the_reference_and_says_so_once(tmp_path: Path) -> None:
    run = run_copy(tmp_path, None, USE)
    assert run.returncode == 0, run.stderr
    assert run.stderr.count("runs from a source tree without compiled kernels") == 1


def test_another_torch_is_one_clear_sentence(tmp_path: Path) -> None:
    run = run_copy(tmp_path, {**INFO, "torch": "1.2.3"}, "import jaa_ext")
    assert run.returncode != 0
    last = run.stderr.splitlines()[-1]
    assert last.startswith("ImportError: jaa_ext was built for torch 1.2.3 (CUDA none), but torch 2.")
    assert "pip install --force-reinstall --no-deps ." in last


def test_kernels_use_the_threads_of_torch() -> None:
    """Compiled without OpenMP, at::parallel_for is a plain loop."""
    from jaa_ext import _C

    assert _C.build_info()["threads"] == "OpenMP"


def test_import_loads_nothing_heavy() -> None:
    code = """
        import sys, torch
        before = set(sys.modules)
        import jaa_ext
        print(*{name.split(".")[0] for name in set(sys.modules) - before})
        jaa_ext.models, jaa_ext.load, jaa_ext.data
    """
    run = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert set(run.stdout.split()) == {"jaa_ext"}


def test_what_there_is_can_be_listed() -> None:
    import jaa_ext

    assert {"load", "export", "ops", "training", "__version__"} <= set(dir(jaa_ext))
    assert isinstance(jaa_ext.__version__, str)
    assert jaa_ext.export.export_model
