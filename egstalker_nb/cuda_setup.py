"""Build gsplat's CUDA extension once for this environment, check it on the GPU, and load it later without a compiler.

gsplat 1.5.3 is distributed as source and needs nvcc. torch from pip includes CUDA's libraries and headers, but no
compiler: if no CUDA toolkit is installed, NVIDIA's compiler wheels are used for the build and not kept. The result is
one file in the environment. `make setup` runs `python -m egstalker_nb.cuda_setup`.
"""
from __future__ import annotations

import ctypes
import importlib.util
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Callable, Optional, Sequence

from .core.cuda_extension import (
    AGAIN,
    FOLDER,
    ON_THE_CPU,
    Capability,
    built_for,
    extension_file,
    listed,
    load_file,
    shipped_with_gsplat,
)
from .core.errors import EgsError, InputError
from .core.files import exclusive_lock, make_folder, writing_to
from .core.progress import Progress
from .core.reading import shown

# the wheels of CUDA 12 contain ptxas but no nvcc; from 13 on they are the whole compiler. Version: that of torch
COMPILER_WHEELS = ("nvidia-cuda-nvcc", "nvidia-cuda-crt", "nvidia-nvvm", "nvidia-cuda-cccl")
FIRST_CUDA_WITH_NVCC = 13
HEADERS = ("cuda_runtime.h", "cublas_v2.h", "cusparse.h", "cusolverDn.h")  # included by torch's headers
DRIVERS = {12: 525, 13: 580}  # first NVIDIA driver (Linux) of each major version of CUDA
FREE_BYTES = 2 * 2**30        # compiler, its download, and intermediate files
JOB_BYTES = 2 * 2**30         # memory of one compiler process
TOLERANCE = 1e-3              # of colours in 0...1, GPU against CPU: approximate exponentials, another order of sums
NO_DEVICE, STUB = 100, 34     # results of cuInit without a GPU, and from the stub library


@dataclass(frozen=True)
class Card:
    """An NVIDIA GPU.

    Attributes:
        name: as the driver reports it.
        capability: compute capability, (9, 0) for instance.
    """

    name: str
    capability: Capability


@dataclass(frozen=True)
class Driver:
    """NVIDIA's driver.

    Attributes:
        cuda: the newest version of CUDA that it supports, (13, 0) for instance.
        cards: the visible GPUs.
    """

    cuda: tuple[int, int]
    cards: tuple[Card, ...]


def find_driver() -> Optional[Driver]:
    """Query NVIDIA's driver, without torch; None without a driver or a visible GPU (see CUDA_VISIBLE_DEVICES).

    Raises:
        InputError: there is a driver, but it cannot be initialised.
    """
    try:
        library = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return None
    version, number = ctypes.c_int(), ctypes.c_int()
    state = library.cuInit(0)
    if state in (NO_DEVICE, STUB):
        return None
    state = state or library.cuDriverGetVersion(ctypes.byref(version)) or library.cuDeviceGetCount(ctypes.byref(number))
    if state:
        raise InputError("NVIDIA's driver to start", f"CUDA error {state}",
                         f"Restart the computer if the driver was just updated, {AGAIN}, {ON_THE_CPU}.")
    if number.value == 0:
        return None
    cards = []
    for i in range(number.value):
        name, major, minor = ctypes.create_string_buffer(100), ctypes.c_int(), ctypes.c_int()
        library.cuDeviceGetName(name, len(name), i)
        library.cuDeviceGetAttribute(ctypes.byref(major), 75, i)  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR
        library.cuDeviceGetAttribute(ctypes.byref(minor), 76, i)
        cards.append(Card(name.value.decode(errors="replace"), (major.value, minor.value)))
    return Driver((version.value // 1000, version.value % 1000 // 10), tuple(cards))


def setup_gpu() -> Optional[str]:
    """Build gsplat's CUDA extension for the GPUs of this machine, unless it exists, and check it with a test image.

    Returns:
        one line on the result; None without an NVIDIA GPU.

    Raises:
        InputError: a prerequisite is missing.
    """
    driver = find_driver()
    if driver is None:
        return None
    names = ", ".join(sorted({card.name for card in driver.cards}))
    ready = f"{names}: gsplat's CUDA extension is ready"
    if shipped_with_gsplat() or {card.capability for card in driver.cards} <= built_for():
        return ready
    cuda, cards = check_torch(driver)
    capabilities = {card.capability for card in cards}
    if capabilities <= built_for():  # torch does not support the others
        return ready
    start = time.perf_counter()
    difference = _install(cuda, capabilities | built_for(), names, check_rendering)
    return (f"{ready}, after {time.perf_counter() - start:.0f} s; a test image rendered on the GPU and on the "
            f"CPU differs by {difference:.0e} at most")


def build_for(names: Sequence[str]) -> str:
    """Build the extension for GPUs that need not be here, in a container image for instance. No test image is rendered.

    Args:
        names: compute capabilities as NVIDIA lists them, such as `8.6`.

    Returns:
        one line on the result.

    Raises:
        InputError: not a capability, torch has no CUDA or does not support one of them, or a prerequisite is missing.
    """
    wrong = [name for name in names if not re.fullmatch(r"\d{1,2}\.\d", name)]
    if wrong:
        raise InputError("compute capabilities such as 8.6", shown(wrong[0]), "NVIDIA lists them for each GPU.")
    capabilities = {(int(major), int(minor)) for major, minor in (name.split(".") for name in names)}
    import torch

    if torch.version.cuda is None:
        raise InputError("a CUDA build of torch", f"torch {torch.__version__}, a build without CUDA",
                         f"Install a CUDA build of the same version (pip's own on Linux), {AGAIN}.")
    too_old = {c for c in capabilities if c < _supported_by_torch()[0]}
    if too_old:
        raise InputError(f"capability {listed({_supported_by_torch()[0]})} or more, which torch {torch.__version__} "
                         "supports", listed(too_old), "Leave it out, or install torch for an older version of CUDA.")
    major, minor = (int(x) for x in torch.version.cuda.split(".")[:2])
    if not capabilities <= built_for():
        _install((major, minor), capabilities | built_for(), f"capability {listed(capabilities)}")
    return f"gsplat's CUDA extension is ready for capability {listed(built_for())}; it was not tried on a GPU here"


def _install(cuda: tuple[int, int], capabilities: set[Capability], names: str,
             check: Optional[Callable[[Path], float]] = None) -> float:
    """Build the extension for these capabilities, check it, and put it in its place; returns what `check` measured."""
    check_tools()
    make_folder(FOLDER)
    with writing_to(FOLDER), exclusive_lock(FOLDER, "GPU set-up"), tempfile.TemporaryDirectory(dir=FOLDER) as work:
        toolkit = installed_toolkit(cuda) or _compiler_from_wheels(cuda, Path(work))
        print(f"Building gsplat's CUDA extension for {names} (once; one to several minutes)", flush=True)
        built = _build(toolkit, _architectures(capabilities), Path(work))
        measured = check(built) if check else 0.0
        os.replace(built, extension_file())
        extension_file().with_suffix(".json").write_text(json.dumps(sorted(capabilities)))
    return measured


def check_torch(driver: Driver) -> tuple[tuple[int, int], list[Card]]:
    """torch's version of CUDA, and the GPUs that it supports.

    Args:
        driver: see `find_driver`.

    Returns:
        major and minor version of CUDA; the GPUs.

    Raises:
        InputError: torch cannot use any of the GPUs.
    """
    try:
        import torch
    except ImportError as error:
        raise InputError("torch", str(error), "pip install torch, " + AGAIN + ".") from error
    name = driver.cards[0].name
    if torch.version.cuda is None:
        raise InputError(f"a CUDA build of torch for {name}", f"torch {torch.__version__}, a build without CUDA",
                         f"Install a CUDA build of the same version (pip's own on Linux), {AGAIN}.")
    major, minor = (int(x) for x in torch.version.cuda.split(".")[:2])
    if driver.cuda[0] < major:
        needed = f"an NVIDIA driver for CUDA {major}" + (f" ({DRIVERS[major]} or newer)" if major in DRIVERS else "")
        raise InputError(f"{needed}, as torch {torch.__version__} needs",
                         f"one for CUDA {driver.cuda[0]}.{driver.cuda[1]}",
                         f"Update the driver, or install torch for CUDA {driver.cuda[0]}, {AGAIN}.")
    if not torch.cuda.is_available():
        raise InputError(f"{name} to be usable by torch", "torch.cuda.is_available() is False",
                         f"Restart the computer if the driver was just updated, {AGAIN}.")
    lowest = _supported_by_torch()[0]
    cards = [card for card in driver.cards if card.capability >= lowest]
    if not cards:
        raise InputError(f"a GPU of capability {listed({lowest})} or more, which torch {torch.__version__} supports",
                         f"{name} with {listed({driver.cards[0].capability})}",
                         f"Install torch for an older version of CUDA, {AGAIN}.")
    return (major, minor), cards


def check_tools() -> None:
    """Check for a C++ compiler, Python's headers, ninja, and disk space for the build.

    Raises:
        InputError: the first one that is missing.
    """
    compiler = os.environ.get("CXX", "c++")
    if shutil.which(compiler) is None or shutil.which("g++") is None and "CXX" not in os.environ:
        raise InputError("a C++ compiler", f"no {compiler if 'CXX' in os.environ else 'g++'}",
                         f"Install it (Debian and Ubuntu: g++, Fedora: gcc-c++), {AGAIN}.")
    if not (Path(sysconfig.get_path("include")) / "Python.h").is_file():
        raise InputError("Python's headers", f"no {sysconfig.get_path('include')}/Python.h",
                         f"Install them (Debian and Ubuntu: python3.{sys.version_info.minor}-dev, "
                         f"Fedora: python3-devel), {AGAIN}.")
    if shutil.which("ninja", path=_search_path()) is None:
        raise InputError("ninja", "none", f"pip install ninja, {AGAIN}.")
    free = shutil.disk_usage(sys.prefix).free
    if free < FREE_BYTES:
        raise InputError(f"{FREE_BYTES / 2**30:.0f} GiB of free disk in '{sys.prefix}'", f"{free / 2**30:.1f} GiB",
                         f"Free some space, {AGAIN}.")


def _search_path() -> str:
    """PATH with the environment's own programs first: if it is not activated, they are not on PATH."""
    return os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])


def _supported_by_torch() -> tuple[Capability, Capability]:
    """The lowest and the highest compute capability that torch was built for."""
    import torch

    numbers = [re.match(r"sm_(\d+)(\d)[a-z]?$", name) for name in torch.cuda.get_arch_list()]
    capabilities = sorted((int(m[1]), int(m[2])) for m in numbers if m)
    return capabilities[0], capabilities[-1]


def _architectures(capabilities: set[Capability]) -> str:
    """As TORCH_CUDA_ARCH_LIST; for a GPU newer than torch's compiler, the newest that it supports, as PTX."""
    newest = _supported_by_torch()[1]
    return ";".join(listed({min(c, newest)}) for c in sorted(capabilities)) + "+PTX"


def installed_toolkit(cuda: tuple[int, int]) -> Optional[Path]:
    """The folder of an installed CUDA toolkit with the headers that torch needs, or None.

    Args:
        cuda: torch's version of CUDA; the major version must match.
    """
    nvcc = shutil.which("nvcc")
    folders = [Path(path) for path in (os.environ.get("CUDA_HOME"), os.environ.get("CUDA_PATH")) if path]
    if nvcc:
        folders += [Path(nvcc).parents[1], Path(nvcc).resolve().parents[1]]
    for folder in (*folders, Path("/usr/local/cuda")):
        if all((folder / "include" / name).is_file() for name in HEADERS):
            with suppress(OSError):
                text = subprocess.run([folder / "bin" / "nvcc", "--version"], capture_output=True, text=True).stdout
                version = re.search(r"release (\d+)\.", text)
                if version and int(version[1]) == cuda[0]:
                    return folder
    return None


def _compiler_from_wheels(cuda: tuple[int, int], work: Path) -> Path:
    """A CUDA_HOME made of NVIDIA's compiler wheels and torch's own CUDA headers and libraries."""
    import torch

    major, minor = cuda
    own = Path(torch.__file__).parents[1] / "nvidia" / f"cu{major}"
    if major < FIRST_CUDA_WITH_NVCC:
        raise InputError(f"the CUDA toolkit {major}.{minor} (nvcc), as torch {torch.__version__} needs",
                         "none, and pip has no nvcc of this version",
                         f"Install the toolkit, or torch for CUDA {FIRST_CUDA_WITH_NVCC}, {AGAIN}.")
    if not all((own / "include" / name).is_file() for name in HEADERS):
        raise InputError(f"the CUDA toolkit {major} (nvcc), or CUDA's headers as installed with torch from pip",
                         f"neither of them ('{own}')", f"Install the toolkit, {AGAIN}.")
    print(f"Downloading NVIDIA's compiler for CUDA {major}.{minor} (100 MB, not kept)", flush=True)
    packages = [f"{name}=={major}.{minor}.*" for name in COMPILER_WHEELS]
    pip = subprocess.run(
        [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-input", "--no-deps",
         "--no-compile", "--only-binary=:all:", "--target", work / "compiler", *packages],
        env=os.environ | {"PIP_USER": "0", "TMPDIR": str(work)}, capture_output=True, text=True)
    if pip.returncode:
        raise InputError(f"NVIDIA's compiler from pip ({', '.join(packages)})", f"pip's output: {_reason(pip.stderr)}",
                         f"Check the network, or install the CUDA toolkit {major}, {AGAIN}.")
    home = work / "compiler" / "nvidia" / f"cu{major}"
    for part in ("include", "lib"):
        shutil.copytree(own / part, home / part, copy_function=_link, dirs_exist_ok=True)
    (home / "lib64").symlink_to("lib")
    if not (home / "lib" / "libcudart.so").exists():  # in wheels it has its versioned name only
        (home / "lib" / "libcudart.so").symlink_to(next((home / "lib").glob("libcudart.so.*")).name)
    return home


def _link(source: str, target: str) -> None:
    with suppress(FileExistsError):  # files of the compiler wheels take precedence
        os.symlink(source, target)


def _build(toolkit: Path, architectures: str, work: Path) -> Path:
    """Compile the extension in `work`, with gsplat's own code in another process; returns the file."""
    folder, log = work / "gsplat_cuda", FOLDER / "build.log"
    spec = importlib.util.find_spec("gsplat")
    if spec is None or spec.origin is None:
        raise InputError("gsplat", "none", f"pip install gsplat==1.5.3, {AGAIN}.")
    sources = Path(spec.origin).parent / "cuda"
    total = sum(len(list(sources.glob(pattern))) for pattern in ("csrc/*.cu", "csrc/*.cpp", "ext.cpp"))
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    jobs = max(1, min(len(os.sched_getaffinity(0)), total, memory // JOB_BYTES))
    env = {"MAX_JOBS": str(jobs), **os.environ, "CUDA_HOME": str(toolkit), "TORCH_EXTENSIONS_DIR": str(work),
           "TORCH_CUDA_ARCH_LIST": architectures, "TMPDIR": str(work), "VERBOSE": "1",
           "PATH": os.pathsep.join([str(toolkit / "bin"), _search_path()])}
    with open(log, "w") as output, Progress(total, "compiling gsplat", "file") as bar:
        process = subprocess.Popen([sys.executable, "-c", "import gsplat.cuda._backend"], env=env, cwd=work,
                                   stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
                                   start_new_session=True)
        try:
            while process.poll() is None:
                time.sleep(0.25)
                bar.update(len(list(folder.glob("*.o"))) - bar.done)
        except BaseException:  # Ctrl-C ends the compilers as well
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            raise
    built = folder / "gsplat_cuda.so"
    if process.returncode or not built.is_file():
        raise InputError("gsplat's CUDA extension to compile", _reason(log.read_text(errors="replace")),
                         f"The compiler's messages are in '{log}'. Fix the cause, {AGAIN}.")
    log.unlink()
    return built


def _reason(text: str) -> str:
    """The first line of a program's output that reports an error, else its last line."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if re.search(r"\berror\b|unsupported", line, re.IGNORECASE)]
    return (errors or lines[-1:] or ["no output"])[0].removeprefix("ERROR: ").rstrip(".")[:300]


def check_rendering(extension: Optional[Path] = None) -> float:
    """Render a few Gaussians on the GPU and on the CPU, and compare.

    Args:
        extension: a file to load as gsplat's extension; by default the installed one.

    Returns:
        the largest difference of a colour in 0...1.

    Raises:
        InputError: the images differ, or rendering on the GPU fails.
    """
    import torch

    from .rasterizer import rasterize

    if extension is not None:
        load_file(extension)
    g, n = torch.Generator().manual_seed(0), 64
    quats, colors = torch.randn(n, 4, generator=g), torch.rand(n, 3, generator=g)
    means, scales = 2 * torch.rand(n, 3, generator=g) - 1, 0.05 + 0.1 * torch.rand(n, 3, generator=g)
    viewmats, Ks = torch.eye(4)[None].clone(), torch.tensor([[[60.0, 0, 32], [0, 60.0, 32], [0, 0, 1]]])
    viewmats[:, 2, 3] = 3.0
    opacities = torch.full((n,), 0.7)

    def render(device: str) -> torch.Tensor:
        rgb, _, _ = rasterize(means.to(device), quats.to(device), scales.to(device), opacities.to(device),
                              colors.to(device), viewmats.to(device), Ks.to(device), 64, 64)
        return rgb.cpu()

    try:
        on_gpu = render("cuda")
    except RuntimeError as error:
        raise InputError("the GPU to render a few Gaussians", str(error).splitlines()[0],
                         f"Update the driver, {AGAIN}, {ON_THE_CPU}.") from error
    difference = float((on_gpu - render("cpu")).abs().max())
    if not difference < TOLERANCE:
        raise InputError("the same image from the GPU and from the CPU", f"colours that differ by {difference:.2g}",
                         f"Update the driver, {AGAIN}, {ON_THE_CPU}.")
    return difference


def main() -> int:
    """The command of `make setup`: prints a line on a machine with an NVIDIA GPU; an error does not fail the set-up."""
    try:
        line = setup_gpu()
        if line:
            print(line)
    except EgsError as error:
        print(f"warning: the NVIDIA GPU cannot be used yet: {error}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
