"""What this computer is, and what follows: threads, the dtype that is really fast, how memory is kept.

The only place that sets threads. Nothing happens at import; torch is imported inside the functions.
"""

import ctypes
import functools
import os
import platform
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any


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
    float32 = _measure_gflops("float32", device)
    bfloat16 = _measure_gflops("bfloat16", device, no_slower_than=float32)
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
    """Cores that this process may use: the smaller of its affinity and its cgroup's quota, at least 1."""
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = _cgroup_quota()
    return max(1, affinity if quota is None else min(affinity, int(quota)))


def measure_memory() -> int:
    """Bytes of memory that this process may use: the smaller of the machine's and its cgroup's limit."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for name in ("memory.max", "memory/memory.limit_in_bytes"):
        text = _read(Path("/sys/fs/cgroup") / name)
        if text.isdigit():
            return min(total, int(text))
    return total


def find_compiler() -> str | None:
    """The C++ compiler that `CXX` names, else g++ or clang++; None means that everything runs eagerly."""
    chosen = os.environ.get("CXX")
    if chosen is not None:
        return shutil.which(chosen)
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


def compute_fingerprint() -> dict[str, str]:
    """What bitwise equality depends on: processor, torch, threads, compute dtype."""
    import torch

    machine = inspect_machine()
    return {
        "processor": machine.processor,
        "torch": torch.__version__,
        "threads": str(torch.get_num_threads()),
        "compute_dtype": machine.compute_dtype,
        "device": machine.device,
    }


def keep_freed_memory() -> bool:
    """Ask glibc to keep freed blocks instead of returning them to the kernel; False where it is not glibc.

    A training step frees and asks again for the same large tensors, and pays a page fault for every 4 KiB each
    time: 4–19 %, median 7 %, of whole training in five paired runs on a Zen 3.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    mmap_threshold, trim_threshold, top_pad = -3, -1, -2
    libc = ctypes.CDLL(None)
    settings = ((mmap_threshold, 1 << 30), (trim_threshold, 2**31 - 1), (top_pad, 64 << 20))
    return all(libc.mallopt(name, value) == 1 for name, value in settings)


def describe_problems() -> list[tuple[str, str]]:
    """What is missing on this computer and what to do about it, as pairs; empty when nothing is."""
    import importlib.util

    wanted = {
        "pyarrow": ("parquet and .zst files cannot be read", "pip install 'trivium[data]'"),
    }
    problems = [pair for name, pair in wanted.items() if importlib.util.find_spec(name) is None]
    if find_compiler() is None:
        problems.append(("no C++ compiler was found, so torch.compile is off", "install g++, or point CXX to one"))
    return problems


def _measure_gflops(dtype: str, device: str, no_slower_than: float = 0.0) -> float:
    """Rate of a matrix product; a dtype that starts at a tenth of the other's rate is not timed further."""
    import torch

    size = 512 if device == "cpu" else 4096
    matrix = torch.ones(size, size, dtype=getattr(torch, dtype), device=device)

    def once() -> float:
        start = time.perf_counter()
        result: Any = matrix @ matrix
        if device == "cuda":
            torch.cuda.synchronize()
        del result
        return 2 * size**3 / 1e9 / (time.perf_counter() - start)

    small = matrix[:64].contiguous()
    start = time.perf_counter()
    small @ matrix
    if 2 * 64 * size**2 / 1e9 / (time.perf_counter() - start) < no_slower_than / 30:
        return once()
    once()
    return max(once() for _ in range(5))


def _cgroup_quota() -> float | None:
    quota, _, period = _read(Path("/sys/fs/cgroup/cpu.max")).partition(" ")
    if not quota:
        quota = _read(Path("/sys/fs/cgroup/cpu/cpu.cfs_quota_us"))
        period = _read(Path("/sys/fs/cgroup/cpu/cpu.cfs_period_us"))
    return int(quota) / int(period) if quota.isdigit() and period.isdigit() else None


def _processor_name() -> str:
    for line in _read(Path("/proc/cpuinfo")).splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _processor_class() -> str:
    if platform.machine().lower() in ("arm64", "aarch64"):
        return "arm"
    flags: set[str] = set()
    for line in _read(Path("/proc/cpuinfo")).splitlines():
        if line.startswith("flags"):
            flags = set(line.partition(":")[2].split())
            break
    if {"avx512f", "avx512_bf16"} <= flags:
        return "avx512-bf16"
    return next((name for name, flag in (("avx512", "avx512f"), ("avx2", "avx2")) if flag in flags), "other")


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""
