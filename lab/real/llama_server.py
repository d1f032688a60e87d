"""llama.cpp's server, built from the source that the package llama-cpp-python brings: one static program for CPUs with AVX2."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from lab.internet import wheels
from lab.internet.shell import BuildError, run
from lab.real import gguf

PACKAGE, VERSION = "llama-cpp-python", "0.3.36"
BACKEND = "scikit-build-core==0.11.6"
"""What pip must have to read the package's metadata; nothing is built with it."""
PROGRAMS = {"cmake": "cmake", "ninja": "ninja-build", "g++": "g++"}
"""Program -> the Debian package that has it."""
CPU_FLAGS = ("avx2", "fma", "f16c", "bmi2")
INJECTED = Path(__file__).with_name("llama_server.cmake")

# No accelerators, no TLS, no web page, nothing that is fetched while building.
OPTIONS = {
    "CMAKE_BUILD_TYPE": "Release",
    "CMAKE_CXX_FLAGS_RELEASE": "-O1",
    "CMAKE_C_FLAGS_RELEASE": "-O2",
    "BUILD_SHARED_LIBS": "OFF",
    "LLAMA_OPENSSL": "OFF",
    "LLAMA_BUILD_TESTS": "OFF",
    "LLAMA_BUILD_EXAMPLES": "OFF",
    "LLAMA_BUILD_APP": "OFF",
    "LLAMA_BUILD_UI": "OFF",
    "LLAMA_USE_PREBUILT_UI": "OFF",
    "LLAMA_SUBPROCESS": "OFF",
    "LLAMA_ALL_WARNINGS": "OFF",
    "GGML_NATIVE": "OFF",
    **{f"GGML_{flag.upper()}": "ON" for flag in CPU_FLAGS},
    "GGML_OPENMP": "OFF",
    "GGML_LLAMAFILE": "OFF",
    "GGML_CPU_REPACK": "OFF",
    "GGML_CCACHE": "OFF",
}


def build(model: Path, cache: Path, folder: Path) -> None:
    """Put the program llama-server into `folder`, and `model` (a tiny Llama of lab/models) as tiny-llama.gguf beside it.

    Raises:
        BuildError: this machine lacks a program or has an older processor, the source cannot be had, or it does not compile.
    """
    check()
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        work = Path(temporary)
        source = _unpack(_source(cache), work)
        options = [f"-D{name}={value}" for name, value in OPTIONS.items()]
        injected = f"-DCMAKE_PROJECT_llama.cpp_INCLUDE={INJECTED}"
        run(["cmake", "-S", source, "-B", work / "build", "-G", "Ninja", *options, injected])
        run(["nice", "-n", "5", "cmake", "--build", work / "build", "--target", "llama-server"])
        shutil.copy(work / "build/bin/llama-server", folder / "llama-server")
    run(["strip", folder / "llama-server"])
    gguf.convert(model, folder / "tiny-llama.gguf")


def check(cpuinfo: Path = Path("/proc/cpuinfo")) -> None:
    """Raise BuildError with everything that this machine lacks."""
    flags = next((line.split() for line in cpuinfo.read_text().splitlines() if line.startswith("flags")), [])
    lacking = [flag for flag in CPU_FLAGS if flag not in flags]
    missing = sorted({package for program, package in PROGRAMS.items() if not shutil.which(program)})
    problems = [f"the processor lacks {', '.join(lacking)}: use a machine of 2013 or later"] if lacking else []
    if missing:
        problems.append(f"missing Debian packages: apt-get install {' '.join(missing)}")
    if problems:
        raise BuildError(f"llama.cpp's server cannot be built here: {'; '.join(problems)}")


def _source(cache: Path) -> Path:
    """The package's source archive; what `cache` has is not asked for again."""
    archive = cache / f"{PACKAGE.replace('-', '_')}-{VERSION}.tar.gz"
    if archive.exists():
        return archive
    cache.mkdir(parents=True, exist_ok=True)
    pip = [wheels.python_with_pip(), "-m", "pip"]
    # pip asks a source archive for its metadata, by the archive's own build backend. With --no-build-isolation it takes that from
    # PYTHONPATH instead of making an environment with compilers for it.
    with tempfile.TemporaryDirectory(dir=cache) as temporary:
        run([*pip, "install", "--quiet", "--target", f"{temporary}/backend", BACKEND])
        download = [
            "download",
            "--quiet",
            "--no-deps",
            "--no-build-isolation",
            "--no-binary",
            PACKAGE,
            "--dest",
            temporary,
        ]
        run([*pip, *download, f"{PACKAGE}=={VERSION}"], env={"PYTHONPATH": f"{temporary}/backend"})
        next(Path(temporary).glob("*.tar.gz")).rename(archive)
    return archive


def _unpack(archive: Path, work: Path) -> Path:
    """llama.cpp's own source tree from the archive."""
    # Not tarfile: extractall's safe filter is newer than Debian 12's Python.
    run(["tar", "-xzf", archive, "-C", work, "--no-same-owner"])
    found = next(work.glob("*/vendor/llama.cpp/CMakeLists.txt"), None)
    if found is None:
        raise BuildError(f"{archive.name} has no vendor/llama.cpp; is it the source archive of {PACKAGE} {VERSION}?")
    return found.parent
