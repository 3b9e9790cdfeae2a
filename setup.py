"""Builds the C++ kernels, and the CUDA kernels where nvcc and a CUDA torch are at hand.

Environment: FORCE_CUDA=1 fails where the CUDA kernels cannot be built; JAA_EXT_NO_CUDA=1 builds for the CPU
only; TORCH_CUDA_ARCH_LIST names the GPU architectures; MAX_JOBS bounds parallel compilers.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).parent
DEFAULT_CUDA_ARCHS = "7.5;8.0;8.6;8.9;9.0+PTX"


def source_files(ending: str) -> list[str]:
    return sorted(str(path.relative_to(ROOT)) for path in (ROOT / "csrc").rglob(f"*{ending}"))


def compiler() -> str:
    """The C++ compiler that will be used, or "" where there is none."""
    candidates = [os.environ["CXX"].split()[0]] if os.environ.get("CXX") else ["c++", "g++", "clang++"]
    return next((found for found in map(shutil.which, candidates) if found), "")


def cuda_home() -> Path | None:
    """The CUDA toolkit's directory: what CUDA_HOME says, or what the nvcc on PATH says of itself.

    torch takes the directory above that nvcc, which is wrong where it is a wrapper script.
    """
    for name in ("CUDA_HOME", "CUDA_PATH"):
        if os.environ.get(name):
            return Path(os.environ[name])
    nvcc = shutil.which("nvcc")
    if nvcc is None:
        return Path("/usr/local/cuda") if Path("/usr/local/cuda/bin/nvcc").exists() else None
    command = [nvcc, "-dryrun", "-x", "cu", "-c", os.devnull]
    told = subprocess.run(command, capture_output=True, text=True).stderr
    here = re.search(r"^#\$ _HERE_=(.+)$", told, re.MULTILINE)
    return (Path(here[1]) if here else Path(nvcc).resolve().parent).parent


def why_no_cuda() -> str:
    """Why only the CPU kernels can be built; "" where the CUDA kernels can."""
    import torch

    if os.environ.get("JAA_EXT_NO_CUDA") == "1":
        return "JAA_EXT_NO_CUDA=1 is set"
    if torch.version.cuda is None:
        return f"the installed torch {torch.__version__} has no CUDA"
    home = cuda_home()
    if home is None or not (home / "bin" / "nvcc").exists():
        return "no nvcc was found (set CUDA_HOME to the CUDA toolkit's directory)"
    told = subprocess.run([home / "bin" / "nvcc", "--version"], capture_output=True, text=True).stdout
    release = re.search(r"release (\d+)\.", told)
    if release is None or release[1] != torch.version.cuda.split(".")[0]:
        return f"the nvcc in {home} is not of CUDA {torch.version.cuda}, for which torch was built"
    return ""


def extension(cuda: bool):
    from torch.utils.cpp_extension import CppExtension, CUDAExtension

    cxx = ["-O3", "-fvisibility=hidden"]
    if "-g" not in os.environ.get("CFLAGS", ""):
        # Debug information, for which Python's own flags ask, takes a third of the time and 44 of 47 MB. Newer
        # setuptools drop these flags, and with them -DNDEBUG, where CFLAGS is set.
        cxx += ["-g0", "-DNDEBUG"]
    if "clang" not in subprocess.run([compiler(), "--version"], capture_output=True, text=True).stdout:
        # Without it at::parallel_for, a template of torch's headers, runs on one thread. For compiling alone:
        # the OpenMP library called is torch's own. (clang calls another one, which torch does not bring.)
        cxx.append("-fopenmp")
    if not cuda:
        return CppExtension("jaa_ext._C", source_files(".cpp"), extra_compile_args={"cxx": cxx})
    import torch

    macros = [
        ("JAA_EXT_CUDA", None),
        ("JAA_EXT_CUDA_VERSION", f'"{torch.version.cuda}"'),
        ("JAA_EXT_CUDA_ARCHS", f'"{os.environ["TORCH_CUDA_ARCH_LIST"]}"'),
    ]
    return CUDAExtension(
        "jaa_ext._C",
        source_files(".cpp") + source_files(".cu"),
        define_macros=macros,
        extra_compile_args={"cxx": cxx, "nvcc": ["-O3"]},
    )


def plan() -> tuple[list, dict, dict[str, str]]:
    """The extension modules, the build command and what `jaa_ext._build_info` will say of them."""
    info = {"torch": "", "cuda": "", "archs": "", "compiler": compiler(), "note": ""}
    if not info["compiler"]:
        info["note"] = "no C++ compiler was found"
        print("jaa_ext: no C++ compiler was found: the reference implementations will run", file=sys.stderr)
        return [], {}, info

    import torch

    info["note"] = why_no_cuda()
    if info["note"] and os.environ.get("FORCE_CUDA") == "1":
        raise SystemExit(f"jaa_ext: FORCE_CUDA=1, but {info['note']}")
    cuda = not info["note"]
    if cuda:
        os.environ["CUDA_HOME"] = str(cuda_home())  # read when torch.utils.cpp_extension is imported
        os.environ.setdefault("TORCH_CUDA_ARCH_LIST", DEFAULT_CUDA_ARCHS)
    print(
        f"jaa_ext: building for the {'CPU and CUDA' if cuda else 'CPU only: ' + info['note']}",
        file=sys.stderr,
    )
    from torch.utils.cpp_extension import BuildExtension

    info["torch"] = torch.__version__
    if cuda:
        info["cuda"], info["archs"] = torch.version.cuda, os.environ["TORCH_CUDA_ARCH_LIST"]
    return [extension(cuda)], {"build_ext": BuildExtension}, info


ext_modules, commands, build_info = plan()


class BuildPy(build_py):
    """Also writes `jaa_ext/_build_info.py`, which is compared with the running torch before `_C` loads."""

    def run(self) -> None:
        super().run()
        path = Path(self.build_lib) / "jaa_ext" / "_build_info.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(
            f'"""Written by setup.py: what this build was made with."""\n\nBUILD_INFO = {build_info!r}\n'
        )


setup(ext_modules=ext_modules, cmdclass={**commands, "build_py": BuildPy})
