"""What this computer is, and what follows: threads, the dtype that is really fast, how memory is kept.

The only place that sets threads. Nothing happens at import; torch is imported inside the functions.
"""

import ctypes
import functools
import importlib.util
import os
import platform
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path("/")  # of the kernel files that are read here
MIB = 1 << 20


@dataclass(frozen=True)
class Machine:
    """A computer as trivium sees it: `memory_bytes` and `cores` are what this process may use.

    `compute_dtype` is the faster of float32 and bfloat16, measured, not guessed; weights stay float32 either way.
    """

    processor: str
    machine_class: str  # avx2, avx512, avx512-bf16, arm, cuda, other
    cores: int
    memory_bytes: int
    device: str
    compute_dtype: str
    compiler: str | None
    float32_gflops: float
    bfloat16_gflops: float


@functools.cache
def inspect_machine() -> Machine:
    """Look once: processor, cores, memory, compiler, and two timed matrix products (about 0.1 s)."""
    import torch

    set_threads()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    float32, bfloat16 = _measure_gflops(device)
    return Machine(
        processor=_processor_name(),
        machine_class="cuda" if device == "cuda" else _processor_class(),
        cores=count_cores(),
        memory_bytes=measure_memory(),
        device=device,
        # A close call goes to float32: autocast has costs of its own.
        compute_dtype="bfloat16" if bfloat16 > 1.3 * float32 else "float32",
        compiler=find_compiler(),
        float32_gflops=round(float32, 1),
        bfloat16_gflops=round(bfloat16, 1),
    )


def count_cores() -> int:
    """Cores that this process may use: the smaller of its affinity and its cgroups' quota, at least 1."""
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min([affinity, *map(int, _cgroup_quotas())]))


def measure_memory() -> int:
    """Bytes of memory that this process may use: the smaller of the machine's and its cgroups' limits."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limits = [_read(folder / "memory.max") or _read(folder / "memory.limit_in_bytes") for folder in _cgroups("memory")]
    return min([total, *(int(limit) for limit in limits if limit.isdigit())])


def find_compiler() -> str | None:
    """The C++ compiler that `CXX` names, else g++ or clang++; None means that everything runs eagerly."""
    chosen = os.environ.get("CXX")
    if chosen is not None:
        # `CXX="ccache g++"` is a program and its arguments; a path may hold spaces too.
        return shutil.which(chosen) or shutil.which(chosen.partition(" ")[0])
    return shutil.which("g++") or shutil.which("clang++")


def set_threads(cores: int | None = None) -> int:
    """Give torch and the tokenizers as many threads as there are cores; `OMP_NUM_THREADS` is honoured."""
    import torch

    named = os.environ.get("OMP_NUM_THREADS", "")
    threads = cores or (int(named) if named.isdigit() and int(named) > 0 else count_cores())
    torch.set_num_threads(threads)
    os.environ.setdefault("RAYON_NUM_THREADS", str(threads))
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true" if threads > 1 else "false")
    return threads


def share_cores() -> None:
    """Let threads that wait for others give up their core; of use only before torch is first imported.

    OpenMP's threads wait by turning in place. With a second busy process on two cores that made training 30 times
    slower (113 tokens/s; 3,663 so); alone the two ways cost the same or nearly. `OMP_WAIT_POLICY` is honoured.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")


def compute_fingerprint() -> dict[str, str]:
    """What bitwise equality depends on: processor and its class, torch, threads, compute dtype."""
    import torch

    machine = inspect_machine()
    return {
        "processor": machine.processor,
        "machine_class": machine.machine_class,
        "torch": torch.__version__,
        "threads": str(torch.get_num_threads()),
        "compute_dtype": machine.compute_dtype,
        "device": machine.device,
    }


def keep_freed_memory() -> bool:
    """Ask glibc to keep freed blocks instead of returning them to the kernel; False where it will not.

    A training step frees and asks again for the same large tensors, and pays a page fault for every 4 KiB each
    time: 4–19 %, median 7 %, of whole training in five paired runs on a Zen 3.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    libc = ctypes.CDLL(None)
    mmap_threshold, trim_threshold, top_pad = -3, -1, -2  # names in malloc.h
    # glibc before 2.35 takes no threshold above 32 MiB.
    kept = libc.mallopt(mmap_threshold, 1024 * MIB) == 1 or libc.mallopt(mmap_threshold, 32 * MIB) == 1
    padded = [libc.mallopt(trim_threshold, 2**31 - 1) == 1, libc.mallopt(top_pad, 64 * MIB) == 1]
    return kept and all(padded)


def describe_problems() -> list[tuple[str, str]]:
    """What is missing on this computer and what to do about it, as pairs; empty when nothing is."""
    pip = f"{sys.executable} -m pip install"
    problems = []
    if importlib.util.find_spec("pyarrow") is None:
        problems.append(("pyarrow is missing: no parquet, no .zst", f'{pip} "pyarrow>=17"'))
    if find_compiler() is None:
        chosen = os.environ.get("CXX")
        found = "no C++ compiler was found" if chosen is None else f"CXX names {chosen!r}, which is not there"
        problems.append((f"{found}: torch.compile is off", "install g++ or clang++, or point CXX to one"))
    if (memory := measure_memory()) < 2048 * MIB:
        problems.append(
            (f"{memory // MIB} MiB of memory", "2 GiB are enough for the demo: close programs, or lift the limit")
        )
    return problems


def _measure_gflops(device: str) -> tuple[float, float]:
    """Rates of a matrix product in float32 and in bfloat16, measured in turns so that a busy moment slows both.

    bfloat16 without the instruction is a hundred times slower: a small product shows it, and no large one is tried.
    """
    import torch

    def prepare(size: int, dtype: torch.dtype) -> Callable[[], float]:
        matrix = torch.ones(size, size, dtype=dtype, device=device)

        def time_product() -> float:
            start = time.perf_counter()
            _ = matrix @ matrix
            if device == "cuda":
                torch.cuda.synchronize()
            return 2 * size**3 / 1e9 / (time.perf_counter() - start)

        time_product()  # the first one chooses a kernel
        return time_product

    def compare(size: int, rounds: int) -> tuple[float, float]:
        float32, bfloat16 = prepare(size, torch.float32), prepare(size, torch.bfloat16)
        pairs = [(float32(), bfloat16()) for _ in range(rounds)]
        return max(pair[0] for pair in pairs), max(pair[1] for pair in pairs)

    small, large = (128, 512) if device == "cpu" else (1024, 4096)
    float32, bfloat16 = compare(small, 3)
    if bfloat16 < float32 / 8:
        product = prepare(large, torch.float32)
        return max(product() for _ in range(5)), bfloat16
    return compare(large, 5)


def _cgroups(controller: str) -> Iterator[Path]:
    """The folders of this process's control groups and of those above them, versions 1 and 2: each may limit it."""
    for line in _read(ROOT / "proc/self/cgroup").splitlines():
        _, controllers, place = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        mount = ROOT / "sys/fs/cgroup" / (controller if controllers else "")
        # A container may be told its place on the host, which it does not see: the mount is then its own group.
        parts = [part for part in place.split("/") if part not in ("", "..")]
        yield from (mount.joinpath(*parts[:depth]) for depth in range(len(parts), -1, -1))


def _cgroup_quotas() -> Iterator[float]:
    """Cores' worth of time that each control group allows."""
    for folder in _cgroups("cpu"):
        quota, _, period = _read(folder / "cpu.max").partition(" ")
        if not quota:
            quota, period = _read(folder / "cpu.cfs_quota_us"), _read(folder / "cpu.cfs_period_us")
        if quota.isdigit() and period.isdigit() and int(period) > 0:
            yield int(quota) / int(period)


def _processor_name() -> str:
    for line in _read(ROOT / "proc/cpuinfo").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _processor_class() -> str:
    if platform.machine().lower() in ("arm64", "aarch64"):
        return "arm"
    lines = _read(ROOT / "proc/cpuinfo").splitlines()
    flags = next((set(line.partition(":")[2].split()) for line in lines if line.startswith("flags")), set())
    if {"avx512f", "avx512_bf16"} <= flags:
        return "avx512-bf16"
    return next((name for name, flag in (("avx512", "avx512f"), ("avx2", "avx2")) if flag in flags), "other")


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""
