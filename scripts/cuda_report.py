"""Registers, spills, shared memory and occupancy of every CUDA kernel, as compiled; needs no GPU.

    python scripts/cuda_report.py > benchmarks/results/cuda-compile.md

Compiles csrc/*/*_cuda.cu for sm_80 and sm_90, and for sm_100 from the PTX of compute_90, as the driver does
with the PTX that is part of a build. CUDA_HOME names the toolkit.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TARGETS = {"sm_80": "compute_80", "sm_90": "compute_90", "sm_100": "compute_90"}
"""Machine code, and the PTX that it is made from."""
SHARED_BYTES = {"sm_80": 164 << 10, "sm_90": 228 << 10, "sm_100": 228 << 10}
"""Of a multiprocessor; each block takes 1 KiB more than it asks for (CUDA C++ Programming Guide, tables of
compute capabilities, as the constants below)."""
REGISTERS, WARPS, BLOCKS = 65536, 64, 32
"""Of a multiprocessor, for each of these targets."""
LAUNCHES = {
    "convolve_kernel<Exact": (96, 57_200),
    "convolve_kernel<MatrixUnits": (192, 57_200),
    "weight_gradient_kernel<Exact": (192, 98_048),
    "weight_gradient_kernel<MatrixUnits<float": (192, 98_048),
    "weight_gradient_kernel<MatrixUnits": (192, 82_544),
}
"""Threads and bytes of run-time shared memory of a block, where `launch.cuh` is asked for others than 256 (or
the launch bounds) and 0: by a part of the kernel's name, the largest of JAA-Net's layers."""


@dataclass(frozen=True)
class Kernel:
    name: str
    registers: int
    spilled: int
    """Bytes stored and loaded."""
    shared: int
    """Bytes known at compile time."""
    threads: int
    """By the launch bounds, or 256."""

    def launch(self) -> tuple[int, int]:
        return next((told for part, told in LAUNCHES.items() if part in self.name), (self.threads, 0))

    def occupancy(self, target: str) -> int:
        """Percent of the warps that a multiprocessor can hold."""
        threads, dynamic = self.launch()
        warps = -(-threads // 32)
        registers_a_warp = -(-self.registers * 32 // 256) * 256
        by_registers = REGISTERS // registers_a_warp // 4 * 4 // warps
        by_shared = SHARED_BYTES[target] // (self.shared + dynamic + 1024)
        return 100 * warps * min(BLOCKS, WARPS // warps, by_registers, by_shared) // WARPS


def main() -> None:
    sources = sorted((ROOT / "csrc").glob("*/*_cuda.cu"))
    jobs = [(source, target) for source in sources for target in TARGETS]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        found = dict(zip(jobs, pool.map(lambda job: compile_for(*job), jobs), strict=True))
    told = subprocess.run([nvcc(), "--version"], capture_output=True, text=True, check=True).stdout
    print("# CUDA kernels as compiled\n")
    print(
        f"By `scripts/cuda_report.py`, {re.search('V[0-9.]+', told)[0]} of nvcc; a cell lists "
        f"{', '.join(TARGETS)}, the last from the PTX of {TARGETS['sm_100']}. Occupancy follows from "
        "registers, threads and shared memory, in percent of the warps that fit a multiprocessor.\n"
    )
    for source in sources:
        print(f"## {source.parent.name}\n")
        print(table([found[source, target] for target in TARGETS]))


def nvcc() -> str:
    home = os.environ.get("CUDA_HOME", "/usr/local/cuda")
    path = shutil.which("nvcc", path=f"{home}/bin{os.pathsep}{os.environ.get('PATH', '')}")
    return path or sys.exit(
        "cuda_report.py: no nvcc was found (set CUDA_HOME to the CUDA toolkit's directory)"
    )


def compile_for(source: Path, target: str) -> list[Kernel]:
    command = [nvcc(), "-O3", "-std=c++17", f"-I{ROOT / 'csrc'}"]
    code = ["-gencode", f"arch={TARGETS[target]},code={target}", "-Xptxas", "-v", "-c", "-o", os.devnull]
    run = subprocess.run([*command, *code, source], capture_output=True, text=True)
    if run.returncode != 0:
        sys.exit(f"cuda_report.py: {source.name} does not compile for {target}:\n{run.stderr}")
    ptx = [*command, f"-arch={TARGETS[target]}", "-ptx", source, "-o", "-"]
    bounds = launch_bounds(subprocess.run(ptx, capture_output=True, text=True, check=True).stdout)
    return kernels_in(run.stderr, bounds)


def launch_bounds(ptx: str) -> dict[str, int]:
    """Threads by mangled name, for kernels that have bounds."""
    found: dict[str, int] = {}
    for entry in re.split(r"\.entry\s+", ptx)[1:]:
        head = entry.partition("{")[0]
        bound = re.search(r"\.(?:max|req)ntid\s+(\d+)(?:,\s*(\d+))?", head)
        if bound:
            found[head.partition("(")[0].strip()] = int(bound[1]) * int(bound[2] or 1)
    return found


def kernels_in(told: str, bounds: dict[str, int]) -> list[Kernel]:
    """From what ``ptxas -v`` says, in the order of readable names."""
    kernels = []
    for block in told.split("Compiling entry function '")[1:]:
        mangled = block.partition("'")[0]
        spills = re.search(r"(\d+) bytes spill stores, (\d+) bytes spill loads", block)
        registers, shared = re.search(r"Used (\d+) registers", block), re.search(r"(\d+) bytes smem", block)
        if spills is None or registers is None:
            sys.exit(f"cuda_report.py: ptxas says nothing of {mangled}:\n{block}")
        kernels.append(
            Kernel(
                readable(mangled),
                int(registers[1]),
                int(spills[1]) + int(spills[2]),
                int(shared[1]) if shared else 0,
                bounds.get(mangled, 256),
            )
        )
    return sorted(kernels, key=lambda kernel: kernel.name)


def readable(mangled: str) -> str:
    """Name and template arguments of a kernel."""
    name = subprocess.run(["c++filt", mangled], capture_output=True, text=True, check=True).stdout.strip()
    name = re.sub(r"jaa_ext::|\(anonymous namespace\)::", "", name).removeprefix("void ")
    depth, end = 0, len(name)
    for place, letter in enumerate(name):
        depth += {"<": 1, ">": -1}.get(letter, 0)
        if letter == "(" and depth == 0:
            end = place
            break
    return name[:end]


def table(by_target: list[list[Kernel]]) -> str:
    header = ["kernel", "threads", "registers", "spilled bytes", "shared bytes", "at run time", "occupancy %"]
    rows = [header, ["---", *["---:"] * (len(header) - 1)]]
    for kernels in zip(*by_target, strict=True):
        assert len({kernel.name for kernel in kernels}) == 1

        def each(values: list[int]) -> str:
            return str(values[0]) if len(set(values)) == 1 else " / ".join(map(str, values))

        rows.append(
            [
                f"`{kernels[0].name}`",
                each([kernel.launch()[0] for kernel in kernels]),
                each([kernel.registers for kernel in kernels]),
                each([kernel.spilled for kernel in kernels]),
                each([kernel.shared for kernel in kernels]),
                each([kernel.launch()[1] for kernel in kernels]),
                each([kernel.occupancy(t) for kernel, t in zip(kernels, TARGETS, strict=True)]),
            ]
        )
    return "\n".join(f"| {' | '.join(row)} |" for row in rows) + "\n"


if __name__ == "__main__":
    main()
