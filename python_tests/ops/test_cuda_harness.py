"""What runs the CUDA kernels on the CPU: it finds mistakes, knows the instructions, and sanitizers see it."""

import ctypes
import os
import subprocess
import sys
from enum import IntEnum
from pathlib import Path

import pytest
import torch
from cuda_on_host import LIBRARY_VARIABLE, build, call, in_every_order, schedule
from torch import Tensor

TESTS = Path(__file__).parents[1]

# As planted.cu has them.
Mistake = IntEnum(
    "Mistake",
    "NONE NO_BARRIER BARRIER_AFTER_RETURN TWO_BARRIERS MISSING_LANE NO_WARP_BARRIER NO_BARRIER_AFTER_COPY "
    "NO_WAIT LATE_WAIT MISALIGNED_COPY COPY_OUTSIDE STATIC_OVERRUN DYNAMIC_OVERRUN GLOBAL_OVERRUN",
    start=0,
)
SHARED_BYTES = 512  # what planted.cu needs


def reverse(library: ctypes.CDLL, mistake: Mistake, shared_bytes: int = SHARED_BYTES) -> list[Tensor]:
    values, result = torch.arange(64, dtype=torch.int32), torch.full((64,), -2, dtype=torch.int32)
    call(library, "planted", mistake, shared_bytes, values, result)
    return [result]


def test_planted_kernel_is_right(library: ctypes.CDLL) -> None:
    (result,) = in_every_order(library, lambda: reverse(library, Mistake.NONE))
    assert result.tolist() == list(range(63, -1, -1))


@pytest.mark.parametrize("mistake", [Mistake.NO_BARRIER, Mistake.NO_BARRIER_AFTER_COPY, Mistake.LATE_WAIT])
def test_order_of_threads_matters(library: ctypes.CDLL, mistake: Mistake) -> None:
    with pytest.raises(AssertionError, match="other bits backwards"):
        in_every_order(library, lambda: reverse(library, mistake))


@pytest.mark.parametrize("order", ["forwards", "backwards"])
@pytest.mark.parametrize(
    ("mistake", "message"),
    [
        (Mistake.BARRIER_AFTER_RETURN, "some threads never reach a barrier"),
        (Mistake.TWO_BARRIERS, "threads wait at different barriers"),
        (Mistake.MISSING_LANE, "lane 5 is missing from an instruction of its warp"),
        (Mistake.NO_WAIT, "a copy is never waited for"),
        (Mistake.MISALIGNED_COPY, "an address is not a multiple of 16"),
        (Mistake.COPY_OUTSIDE, "an address is not in shared memory"),
    ],
)
def test_mistakes_are_reported(library: ctypes.CDLL, mistake: Mistake, message: str, order: str) -> None:
    schedule(library, order)
    with pytest.raises(RuntimeError, match=rf"^line \d+: {message}$"):
        reverse(library, mistake)
    test_planted_kernel_is_right(library)  # nothing is left behind


def test_shared_memory_is_limited(library: ctypes.CDLL) -> None:
    for capability, kilobytes in ((75, 64), (80, 163), (86, 99), (89, 99), (90, 227)):
        library.set_compute_capability(capability)
        reverse(library, Mistake.NONE, kilobytes << 10)
        with pytest.raises(RuntimeError, match=f"at most {kilobytes << 10} bytes of shared memory"):
            reverse(library, Mistake.NONE, (kilobytes << 10) + 1)


@pytest.mark.parametrize("lanes", [32, 8])
def test_shuffles(library: ctypes.CDLL, lanes: int) -> None:
    values = torch.arange(100, 100 + lanes, dtype=torch.int32)

    def shuffled() -> list[Tensor]:
        result = torch.full((lanes, 3), -1, dtype=torch.int32)
        call(library, "shuffles", lanes, values, result)
        return [result]

    if lanes < 32:
        with pytest.raises(RuntimeError, match="a shuffle reads outside its mask"):
            shuffled()
        return
    (result,) = in_every_order(library, shuffled)
    expected = [[100 + k // 2, 100 + (k + 3 if k < 29 else k), 100 + (k ^ 1)] for k in range(32)]
    assert result.tolist() == expected


SCALAR = {torch.float32: 1, torch.float16: 2, torch.bfloat16: 3}  # as csrc/common/scalar.h numbers them


def product(
    library: ctypes.CDLL,
    a: Tensor,
    b: Tensor,
    c: Tensor,
    *,
    by_rows: bool,
    threads: int = 32,
    displacement: int = 0,
) -> Tensor:
    """a b + c by the kernel of matrices.cu."""
    d = torch.full((16, 16), torch.nan)
    b = b.contiguous() if by_rows else b.T.contiguous()
    call(library, "matrix_product", SCALAR[a.dtype], a, b, by_rows, c, d, threads, displacement)
    return d


def draw_matrices(dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    k = 8 if dtype == torch.float32 else 16
    a, b, c = (torch.randn(*shape, generator=generator) for shape in ((16, k), (k, 16), (16, 16)))
    return a.to(dtype), b.to(dtype), c


@pytest.mark.parametrize(
    ("dtype", "by_rows"),
    [
        (torch.float32, False),
        (torch.float16, False),
        (torch.float16, True),
        (torch.bfloat16, False),
        (torch.bfloat16, True),
    ],
)
def test_matrix_instructions(library: ctypes.CDLL, dtype: torch.dtype, by_rows: bool) -> None:
    a, b, c = draw_matrices(dtype)
    (actual,) = in_every_order(library, lambda: [product(library, a, b, c, by_rows=by_rows)])
    if dtype == torch.float32:  # TensorFloat-32 has 10 bits of fraction; the others are ignored
        a, b = ((t.view(torch.int32) & ~0x1FFF).view(torch.float32) for t in (a, b))
    torch.testing.assert_close(actual.double(), a.double() @ b.double() + c, rtol=2**-23, atol=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(threads=31), "lane 31 is missing from an instruction of its warp"),
        (dict(displacement=8), "an address is not a multiple of 16"),
        (dict(displacement=1024), "an address is not in shared memory"),
    ],
)
def test_mistakes_with_matrices_are_reported(library: ctypes.CDLL, options: dict, message: str) -> None:
    with pytest.raises(RuntimeError, match=rf"^line \d+: {message}$"):
        product(library, *draw_matrices(torch.bfloat16), by_rows=True, **options)


def test_older_gpus_lack_matrix_instructions(library: ctypes.CDLL) -> None:
    for capability, dtype in ((75, torch.bfloat16), (75, torch.float32), (70, torch.float16)):
        library.set_compute_capability(capability)
        with pytest.raises(RuntimeError, match="this GPU lacks the matrix instructions"):
            product(library, *draw_matrices(dtype), by_rows=False)


Python = tuple[list[str], dict[str, str]]  # the command and its environment


def sanitized_python(folder: Path, runtime: str, options: dict[str, str], *flags: str) -> Python:
    """Python that calls the kernels compiled with a sanitizer."""

    def path(name: str) -> str:
        return subprocess.check_output(["g++", f"-print-file-name={name}"], text=True).strip()

    preload = f"{path(runtime)} {path('libstdc++.so.6')}"  # the second for exceptions
    # The threads of OpenMP synchronise unseen.
    variables = {"LD_PRELOAD": preload, "OMP_NUM_THREADS": "1", LIBRARY_VARIABLE: str(build(folder, *flags))}
    return [sys.executable], os.environ | variables | options


@pytest.fixture(scope="session")
def with_address_sanitizer(tmp_path_factory: pytest.TempPathFactory) -> Python:
    """And UBSan."""
    flags = "-fsanitize=address,undefined", "-fno-sanitize-recover=undefined"
    options = {"ASAN_OPTIONS": "detect_leaks=0"}
    return sanitized_python(tmp_path_factory.mktemp("address"), "libasan.so", options, *flags)


@pytest.fixture(scope="session")
def with_thread_sanitizer(tmp_path_factory: pytest.TempPathFactory) -> Python:
    options = {"TSAN_OPTIONS": "halt_on_error=1 ignore_noninstrumented_modules=1"}
    folder = tmp_path_factory.mktemp("thread")
    command, environment = sanitized_python(folder, "libtsan.so", options, "-fsanitize=thread")
    # Highly random addresses keep ThreadSanitizer from starting; some containers insist on them.
    fixed_addresses = ["setarch", "-R"]
    try:
        subprocess.run([*fixed_addresses, "true"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        fixed_addresses = []
    return [*fixed_addresses, *command], environment


def start(python: Python, *arguments: str | Path, cwd: Path) -> subprocess.Popen:
    command, environment = python
    pipe = subprocess.PIPE
    return subprocess.Popen(
        [*command, *arguments], env=environment, cwd=cwd, stdout=pipe, stderr=pipe, text=True
    )


def test_sanitizers_find_nothing_in_kernels(
    with_address_sanitizer: Python, with_thread_sanitizer: Python, tmp_path: Path
) -> None:
    """All tests of the kernels once more, with each."""
    options = ["-c", TESTS.parent / "pyproject.toml", "-p", "no:cacheprovider", "--capture=no"]
    command = ["-m", "pytest", *options, TESTS / "ops" / "test_cuda_on_host.py"]
    runs = [start(p, *command, cwd=tmp_path) for p in (with_address_sanitizer, with_thread_sanitizer)]
    for run in runs:
        output, errors = run.communicate()
        assert run.returncode == 0 and " passed" in output and "skipped" not in output, output + errors


PLANTED = """
import ctypes, os, sys
memory = ctypes.CDLL(None)
memory.malloc.restype = ctypes.c_void_p
values, result = (ctypes.c_void_p(memory.malloc(64 * 4)) for _ in range(2))
library = ctypes.CDLL(os.environ["JAA_EXT_CUDA_ON_HOST"])
library.planted.restype = ctypes.c_char_p
message = library.planted(int(sys.argv[1]), int(sys.argv[2]), values, result)
assert message is None, message
"""


def assert_planted(python: Python, mistake: Mistake, report: str | None, cwd: Path) -> None:
    """The report names the mistake, and where it is; None: there is no report."""
    process = start(python, "-c", PLANTED, str(int(mistake)), str(SHARED_BYTES), cwd=cwd)
    _, errors = process.communicate()
    if report is None:
        assert process.returncode == 0 and not errors, errors
    else:
        assert process.returncode != 0 and report in errors and "planted.cu" in errors, errors


@pytest.mark.parametrize(
    ("mistake", "report"),
    [
        (Mistake.NONE, None),
        (Mistake.STATIC_OVERRUN, "out of bounds for type 'int [64]'"),
        (Mistake.DYNAMIC_OVERRUN, "heap-buffer-overflow"),
        (Mistake.GLOBAL_OVERRUN, "heap-buffer-overflow"),
    ],
)
def test_address_sanitizer_finds_overruns(
    with_address_sanitizer: Python, mistake: Mistake, report: str | None, tmp_path: Path
) -> None:
    assert_planted(with_address_sanitizer, mistake, report, tmp_path)


@pytest.mark.parametrize(
    ("mistake", "report"),
    [
        (Mistake.NONE, None),
        (Mistake.NO_BARRIER, "data race"),
        (Mistake.NO_BARRIER_AFTER_COPY, "data race"),
        (Mistake.NO_WARP_BARRIER, "data race"),
    ],
)
def test_thread_sanitizer_finds_races(
    with_thread_sanitizer: Python, mistake: Mistake, report: str | None, tmp_path: Path
) -> None:
    assert_planted(with_thread_sanitizer, mistake, report, tmp_path)
