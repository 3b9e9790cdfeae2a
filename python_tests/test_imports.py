"""Imports point downwards, see the contract in pyproject.toml."""

import subprocess
import sysconfig
from pathlib import Path

import pytest

PYPROJECT = Path(__file__).resolve().parents[1] / "pyproject.toml"


def lint(config: Path) -> subprocess.CompletedProcess[str]:
    command = Path(sysconfig.get_path("scripts")) / "lint-imports"
    run = [command, "--no-cache", config]
    return subprocess.run(run, capture_output=True, text=True)


def test_imports_point_downwards() -> None:
    pytest.importorskip("importlinter")
    done = lint(PYPROJECT)
    assert done.returncode == 0, done.stdout


def test_an_import_that_points_upwards_is_found(tmp_path: Path) -> None:
    pytest.importorskip("importlinter")
    wrong = tmp_path / "pyproject.toml"
    text = PYPROJECT.read_text(encoding="utf-8")
    wrong.write_text(text.replace('    "nn",\n    "ops",\n', '    "ops",\n    "nn",\n'), encoding="utf-8")
    done = lint(wrong)
    assert done.returncode == 1
    assert "jaa_ext.nn is not allowed to import jaa_ext.ops" in done.stdout
