"""The documents' code runs as it stands, top to bottom; their links lead somewhere; the site builds."""

import ast
import importlib
import importlib.metadata
import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
import zlib
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import cv2
import numpy as np
import pytest
import torch
import yaml
from skimage import data
from torch.utils.cpp_extension import include_paths, library_paths
from typer.core import TyperGroup
from typer.main import get_command

import jaa_ext
from jaa_ext import cli, facs
from jaa_ext.models import JAANet, JAANetConfig, save_model
from jaa_ext.predict import columns

ROOT = Path(__file__).parents[1]
CONTRIBUTING = ROOT / "CONTRIBUTING.md"
DOCS = sorted((ROOT / "docs").glob("*.md"))
PAGES = [*DOCS, CONTRIBUTING]
WITHOUT_CODE = [ROOT / "README.md", *sorted((ROOT / "benchmarks").glob("*.md"))]
"""Whose code is run elsewhere, or for minutes."""

pytestmark = pytest.mark.usefixtures("one_thread")


class Block(NamedTuple):
    """A fenced block of a page."""

    language: str
    line: int
    """Of its first line of code, from 1."""
    code: str

    @property
    def file(self) -> str | None:
        """The path in its first line, where that is a comment: the block is this file."""
        path = re.match(r"(?:#|//) ([\w/]+\.(?:cpp|cu|h|py|yaml))\b", self.code)
        return None if path is None else path[1]


def blocks(page: Path) -> list[Block]:
    text = page.read_text(encoding="utf-8")
    fences = list(re.finditer(r"^```(\w+)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL))
    assert len(re.findall("^ *```", text, re.MULTILINE)) == 2 * len(fences), (
        f"{page.name}: a block of no language"
    )
    return [Block(fence[1], text[: fence.start(2)].count("\n") + 1, fence[2]) for fence in fences]


@pytest.fixture(scope="module")
def taken_for_granted(releases, at_rest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the pages speak of as there: a photograph, a video, a model, data sets, labels of one's own."""
    folder = tmp_path_factory.mktemp("taken_for_granted")
    astronaut = data.astronaut()[..., ::-1]  # a face at about (225, 115)
    assert cv2.imwrite(str(folder / "photo.jpg"), astronaut)
    (folder / "photos").mkdir()
    for i in range(3):
        assert cv2.imwrite(str(folder / "photos" / f"{i}.jpg"), astronaut[:260, 80 + 8 * i : 360 + 8 * i])
    lines = ["image,subject,AU1,AU12", *(f"photos/{i}.jpg,person {i},{i % 2},1" for i in range(3))]
    (folder / "mine.csv").write_text("\n".join(lines))

    video = cv2.VideoWriter(str(folder / "talk.mp4"), cv2.VideoWriter.fourcc(*"mp4v"), 10, (280, 260))
    assert video.isOpened()
    for i in range(16):
        video.write(np.ascontiguousarray(astronaut[:260, 80 + 2 * i : 360 + 2 * i]))
    video.release()

    torch.manual_seed(0)
    model = at_rest(JAANet(JAANetConfig.journal((1, 12), image_size=64, width=1)))
    save_model(model, folder / "model.safetensors")
    releases.make_bp4d(folder / "BP4D")
    releases.make_disfa(folder / "DISFA")
    releases.make_affwild2(folder / "Aff-Wild2")
    return folder


@pytest.mark.parametrize("page", PAGES, ids=[page.stem for page in PAGES])
def test_code_runs(page: Path, jaa, taken_for_granted: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("jaa_ext.weights.FILE", taken_for_granted / "model.safetensors")
    for package in ("onnx", "onnxscript", "onnxruntime") if page.stem == "export" else ():
        pytest.importorskip(package)
    shutil.copytree(taken_for_granted, tmp_path, dirs_exist_ok=True)
    names = {"__name__": page.stem}
    for block in blocks(page):
        if block.file is not None:
            path = tmp_path / block.file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(block.code, encoding="utf-8")
        elif block.language == "python":
            # Empty lines before it: a traceback then shows the page's own line.
            exec(compile("\n" * (block.line - 1) + block.code, page, "exec"), names)
        elif block.language == "bash":
            for line in block.code.splitlines():
                run_line(line, jaa)
        else:
            assert block.language == "text", f"{page.name}:{block.line}: what is {block.language}?"


def run_line(line: str, jaa: Callable[..., tuple[int, str, str]]) -> None:
    """Run a command of `jaa`; of any other, see that it is one."""
    match shlex.split(line, comments=True):
        case ["jaa", *arguments]:
            # Workers of `prepare` would take longer to start than their work takes.
            extra = ("--workers", 0) if arguments[0] == "prepare" else ()
            code, _, error = jaa(*arguments, *extra)
            assert code == 0, f"{line}: {error}"
            if "--out" in arguments:
                assert Path(arguments[arguments.index("--out") + 1]).exists(), line
        case ["torchrun", "--nproc-per-node", "2", "-m", "jaa_ext", ("train" | "predict") as command, *rest]:
            parse_jaa([command, *rest])  # test_distributed.py and predict/test_job.py run such
        case ["pip", "install", *options, target]:
            assert options in ([], ["--no-deps"]), line
            extras = re.fullmatch(r"\.(?:\[([a-z,-]+)\])?", target)
            assert extras is not None, line
            declared = (ROOT / "pyproject.toml").read_text().split("[project.optional-dependencies]")[1]
            for extra in filter(None, (extras[1] or "").split(",")):
                assert re.search(rf"^{extra} = \[", declared, re.MULTILINE), f"{line}: no extra {extra}"
        case [("ruff" | "mypy" | "pytest" | "sphinx-build" | ".ci/run"), *arguments] as words:
            assert "/" not in words[0] or os.access(ROOT / words[0], os.X_OK), line
            for path in (word for word in arguments if "/" in word):
                assert (ROOT / path).parent.exists(), line
        case words:
            assert not words, f"{line}: what is this?"


def parse_jaa(words: list[str]) -> None:
    """See that the command and its options exist."""
    command = get_command(cli.app)
    while isinstance(command, TyperGroup):
        command = command.commands[words.pop(0)]
    command.make_context("jaa", words)


@pytest.mark.parametrize("page", [*PAGES, *WITHOUT_CODE], ids=lambda page: f"{page.parent.name}-{page.stem}")
def test_links_lead_somewhere(page: Path) -> None:
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    links = re.findall(r"\]\(([^)\s]+)\)", text)
    for link in links:
        if link.startswith("https://"):
            continue
        path, _, heading = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists() and target.is_relative_to(ROOT), f"{page.name}: {link}"
        if heading:
            headings = re.findall(r"^#+ (.+)$", target.read_text(encoding="utf-8"), re.MULTILINE)
            assert heading in {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in headings}, link


@pytest.mark.parametrize("page", DOCS, ids=[page.stem for page in DOCS])
def test_files_that_a_page_names_are_there(page: Path) -> None:
    named = re.findall(r"\b(?:jaa_ext|csrc|build_tools)/[\w./-]*\w/?", page.read_text(encoding="utf-8"))
    made = {"jaa_ext/_build_info.py"}  # by setup.py
    assert [name for name in named if name not in made and not (ROOT / name).exists()] == []


def test_the_program_says_what_troubleshooting_lists() -> None:
    """What stands between the dots of a message is in one of the program's strings."""
    sources = [ROOT / "setup.py", *(ROOT / "jaa_ext").rglob("*.py")]
    nodes = [node for path in sources for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))]
    texts = [node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)]
    texts += [path.read_text(encoding="utf-8") for path in (ROOT / "csrc").rglob("*.cpp")]
    page = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
    messages = re.findall("`([^`]+)`", "".join(re.findall(r"^\| (`.*?`) \|", page, re.MULTILINE)))
    assert len(messages) > 50
    for message in messages:
        for part in filter(None, (part.strip() for part in message.split("…"))):
            assert any(part in text for text in texts), message


def test_the_citation_is_of_this_version() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == importlib.metadata.version("jaa_ext")
    assert citation["license"] == (ROOT / "LICENSE").read_text().split()[0]
    assert [paper["year"] for paper in citation["references"]] == [2018, 2021, 2021]


def test_every_column_has_a_row() -> None:
    first_cells = re.findall(r"^\| (.*?) \|", (ROOT / "docs" / "columns.md").read_text("utf-8"), re.MULTILINE)
    named = {name for cell in first_cells for name in re.findall(r"`(\w+)`", cell)}
    assert {
        name
        for name in columns((1,), intensity=True)
        if not re.fullmatch(r"[xy]_([1-9]|[1-3]\d|4[0-7])", name)
    } <= named


def test_every_page_is_in_the_contents() -> None:
    docs = ROOT / "docs"
    listed = re.findall(r"^   ([\w/-]+)$", (docs / "index.rst").read_text(), re.MULTILINE)
    files = [path.relative_to(docs) for path in docs.rglob("*") if path.suffix in (".md", ".rst")]
    names = {str(path.with_suffix("")) for path in files if path.parts[0] != "_build"}
    assert sorted(listed) == sorted(names - {"README", "index"})
    home = (docs / "README.md").read_text(encoding="utf-8")
    for name in listed:
        assert f"({name}.md)" in home or name.startswith("reference/"), name


def test_the_site_builds_and_its_reference_is_complete(tmp_path: Path) -> None:
    for package in ("sphinx", "furo", "myst_parser"):
        pytest.importorskip(package)
    command = f"-m sphinx -q -W --keep-going -d trees {shlex.quote(str(ROOT / 'docs'))} site"
    done = run(sys.executable, *shlex.split(command))
    assert done.returncode == 0, done.stderr
    inventory = (tmp_path / "site" / "objects.inv").read_bytes()
    entries = inventory.split(b"\n", 4)[4]  # after four lines of heading
    there = {line.split()[0] for line in zlib.decompress(entries).decode().splitlines()}

    public = {f"jaa_ext.{name}" for name in jaa_ext.__all__}
    for namespace in sorted(set(jaa_ext.__all__) - {"export", "facs", "load", "plots"}):
        module = importlib.import_module(f"jaa_ext.{namespace}")
        public |= {f"jaa_ext.{namespace}.{name}" for name in module.__all__}
    for name, value in vars(facs).items():
        elsewhere = getattr(value, "__module__", facs.__name__) != facs.__name__ or name == "TYPE_CHECKING"
        if name[0] != "_" and not elsewhere and not isinstance(value, ModuleType):
            public.add(f"jaa_ext.facs.{name}")
    assert public <= there, sorted(public - there)
    page = (tmp_path / "site" / "reference" / "ops.html").read_text(encoding="utf-8")
    assert "floor(i * H / grid_h)" in re.sub("<[^>]*>", "", page)  # of region_conv2d's docstring


def test_the_example_op_of_contributing_works(tmp_path: Path) -> None:
    files = {block.file: block.code for block in blocks(CONTRIBUTING) if block.file is not None}
    assert len(files) == 8  # seven of its own, and what is added to reference.py
    for file in ("conftest.py", "ops/conftest.py"):
        files[f"python_tests/{file}"] = (ROOT / "python_tests" / file).read_text()
    files["plugin.py"] = PLUGIN
    for name, code in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(code, encoding="utf-8")
    shutil.copytree(ROOT / "csrc" / "common", tmp_path / "csrc" / "common")

    headers = [f"-I{path}" for path in (*include_paths(), sysconfig.get_path("include"))]
    sources = sorted((tmp_path / "csrc" / "scaled_add").glob("*.cpp"))
    libraries = [*(f"-L{path}" for path in library_paths()), "-ltorch", "-ltorch_cpu", "-lc10"]
    compiler = os.environ.get("CXX", "c++").split()
    options = ["-std=c++20", "-fPIC", "-shared", "-o", "scaled_add.so"]
    done = run(*compiler, *options, *headers, *sources, *libraries)
    assert done.returncode == 0, done.stderr

    # In a process of its own: what is registered with torch stays.
    options = "-q --import-mode=importlib --rootdir . -p plugin python_tests/ops/test_scaled_add.py"
    done = run(sys.executable, "-m", "pytest", *options.split())
    assert done.returncode == 0, done.stdout + done.stderr
    assert "7 passed" in done.stdout


PLUGIN = """
import importlib.util

import torch

from jaa_ext import ops

torch.ops.load_library("scaled_add.so")
with open("jaa_ext/ops/reference.py") as file:
    exec(file.read(), vars(ops.reference))
spec = importlib.util.spec_from_file_location("scaled_add", "jaa_ext/ops/scaled_add.py")
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
ops.scaled_add = module.scaled_add
"""
"""Puts the example op where the installed package would have it."""


def run(*command: str | Path) -> subprocess.CompletedProcess[str]:
    paths = [".", str(ROOT / "python_tests" / "cuda_on_host")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, env=environment, capture_output=True, text=True)
