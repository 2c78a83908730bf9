"""What a computer is taken for, on kernel files written for the purpose, and how its numbers are chosen."""

import os
import platform
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from trivium import machine
from trivium.machine import (
    Machine,
    compute_fingerprint,
    count_cores,
    describe_problems,
    find_compiler,
    inspect_machine,
    keep_freed_memory,
    measure_memory,
    set_threads,
)

GIB = 1 << 30


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty tree in the place of /proc and /sys, on a computer of 16 cores and 64 GiB."""
    monkeypatch.setattr(machine, "ROOT", tmp_path)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(16)), raising=False)
    monkeypatch.setattr(os, "sysconf", lambda name: {"SC_PAGE_SIZE": 4096, "SC_PHYS_PAGES": 64 * GIB // 4096}[name])
    return tmp_path


def write(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")


def test_without_kernel_files_affinity_and_memory_count(root: Path) -> None:
    assert (count_cores(), measure_memory()) == (16, 64 * GIB)


V2, V1 = "0::/job/step", "3:memory:/job\n4:cpu,cpuacct:/job\n0::/"
LIMITS = {
    "v2 at its own group": (V2, {"job/step/cpu.max": "300000 100000", "job/step/memory.max": "1073741824"}, 3, 1),
    "v2 at a group above": (V2, {"job/cpu.max": "400000 100000", "job/memory.max": "2147483648"}, 4, 2),
    "v2, the smallest of all": (
        V2,
        {"cpu.max": "800000 100000", "job/cpu.max": "200000 100000", "job/step/cpu.max": "max 100000"},
        2,
        64,
    ),
    "v2 without a limit": (V2, {"job/step/cpu.max": "max 100000", "job/step/memory.max": "max"}, 16, 64),
    "v2 below one core": (V2, {"job/step/cpu.max": "50000 100000"}, 1, 64),
    "v2, a container's own root": ("0::/", {"cpu.max": "250000 100000", "memory.max": "4294967296"}, 2, 4),
    "v2, a place outside": ("0::/../../x", {"cpu.max": "500000 100000"}, 5, 64),
    "v1": (
        V1,
        {
            "memory/job/memory.limit_in_bytes": "8589934592",
            "cpu/job/cpu.cfs_quota_us": "600000",
            "cpu/job/cpu.cfs_period_us": "100000",
        },
        6,
        8,
    ),
    "v1 without a limit": (
        V1,
        {
            "memory/job/memory.limit_in_bytes": "9223372036854771712",
            "cpu/job/cpu.cfs_quota_us": "-1",
            "cpu/job/cpu.cfs_period_us": "100000",
        },
        16,
        64,
    ),
    "v1, the host's place in a container": (V1, {"memory/memory.limit_in_bytes": "3221225472"}, 16, 3),
}


@pytest.mark.parametrize("name", LIMITS)
def test_control_groups_limit_cores_and_memory(name: str, root: Path) -> None:
    place, files, cores, gibibytes = LIMITS[name]
    write(root, {"proc/self/cgroup": place, **{f"sys/fs/cgroup/{path}": text for path, text in files.items()}})
    assert (count_cores(), measure_memory()) == (cores, gibibytes * GIB)


def test_affinity_may_be_the_smaller(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(root, {"proc/self/cgroup": "0::/", "sys/fs/cgroup/cpu.max": "800000 100000"})
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 5}, raising=False)
    assert count_cores() == 2


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ("fpu sse4_2 avx avx2", "avx2"),
        ("avx2 avx512f avx512bw", "avx512"),
        ("avx2 avx512f avx512_bf16 amx_bf16", "avx512-bf16"),
        ("fpu sse2", "other"),
    ],
)
def test_processor_class_comes_from_the_flags(
    flags: str, expected: str, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    write(root, {"proc/cpuinfo": f"processor\t: 0\nmodel name\t: A Processor: 3\nflags\t\t: {flags}"})
    assert machine._processor_class() == expected
    assert machine._processor_name() == "A Processor: 3"


@pytest.mark.parametrize("name", ["arm64", "aarch64"])
def test_arm_is_known_without_flags(name: str, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: name)
    assert machine._processor_class() == "arm"


@pytest.mark.parametrize(
    ("rates", "expected"),
    [((100.0, 0.5), "float32"), ((100.0, 120.0), "float32"), ((100.0, 131.0), "bfloat16"), ((0.0, 0.0), "float32")],
)
def test_the_compute_dtype_is_the_one_that_is_clearly_faster(
    rates: tuple[float, float], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "_measure_gflops", lambda device: rates)
    assert inspect_machine.__wrapped__().compute_dtype == expected


def test_a_dtype_without_the_instruction_is_tried_on_small_matrices_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """The clock is counted in products: a float32 product takes 1 tick, a bfloat16 product 100."""
    sizes: list[tuple[torch.dtype, int]] = []
    now = 0.0

    def multiply(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        nonlocal now
        sizes.append((left.dtype, len(left)))
        now += 100 if left.dtype == torch.bfloat16 else 1
        return left

    monkeypatch.setattr(torch.Tensor, "__matmul__", multiply)
    monkeypatch.setattr(machine.time, "perf_counter", lambda: now)
    float32, bfloat16 = machine._measure_gflops("cpu")
    largest = {dtype: max(size for kind, size in sizes if kind == dtype) for dtype in (torch.float32, torch.bfloat16)}
    assert largest[torch.bfloat16] < largest[torch.float32]
    assert float32 > bfloat16


def test_this_machine_is_inspected_once() -> None:
    found = inspect_machine()
    assert isinstance(found, Machine) and found is inspect_machine()
    assert found.machine_class in {"avx2", "avx512", "avx512-bf16", "arm", "other", "cuda"}
    assert found.compute_dtype in {"float32", "bfloat16"}
    assert found.cores >= 1 and found.memory_bytes > 0 and found.float32_gflops > 0
    fingerprint = compute_fingerprint()
    assert all(isinstance(value, str) for value in fingerprint.values())
    assert {"processor", "torch", "threads", "compute_dtype"} <= set(fingerprint)


def make_compiler(folder: Path, name: str) -> Path:
    path = folder / name
    path.write_text("#!/bin/sh\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def test_a_compiler_is_what_cxx_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "my tools"
    folder.mkdir()
    path = make_compiler(folder, "c++-99")
    monkeypatch.setenv("PATH", str(folder))
    for chosen, found in (("c++-99", path), (str(path), path), ("c++-99 -v", path), ("nothing", None), ("", None)):
        monkeypatch.setenv("CXX", chosen)
        assert find_compiler() == (str(found) if found else None), chosen
    monkeypatch.delenv("CXX")
    assert find_compiler() is None
    for name in ("clang++", "g++"):
        expected = make_compiler(folder, name)
        assert find_compiler() == str(expected)


def test_threads_honour_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    before, asked = torch.get_num_threads(), []
    monkeypatch.setattr(torch, "set_num_threads", asked.append)
    for name in ("RAYON_NUM_THREADS", "TOKENIZERS_PARALLELISM"):
        monkeypatch.setenv(name, "kept")
        monkeypatch.delenv(name)
    monkeypatch.setattr(machine, "count_cores", lambda: 7)
    for value, threads in (("3", 3), ("0", 7), ("many", 7), ("", 7)):
        monkeypatch.setenv("OMP_NUM_THREADS", value)
        assert set_threads() == threads
    assert set_threads(5) == 5
    assert asked == [3, 7, 7, 7, 5] and torch.get_num_threads() == before
    assert os.environ["RAYON_NUM_THREADS"] == "3"  # a choice already made stays


def test_problems_say_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine.importlib.util, "find_spec", lambda name: object())
    monkeypatch.setattr(machine, "measure_memory", lambda: 8 * GIB)
    monkeypatch.setattr(machine, "find_compiler", lambda: "/usr/bin/g++")
    assert describe_problems() == []
    monkeypatch.setattr(machine.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(machine, "measure_memory", lambda: GIB)
    monkeypatch.setattr(machine, "find_compiler", lambda: None)
    monkeypatch.setenv("CXX", "nothing")
    (pyarrow, pip), (compiler, _), (memory, _) = describe_problems()
    assert "parquet" in pyarrow and pip.startswith(sys.executable) and "pyarrow" in pip
    assert "'nothing'" in compiler and "1024 MiB" in memory


def test_memory_is_kept_on_glibc_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "libc_ver", lambda: ("", ""))
    assert keep_freed_memory() is False


class OldLibrary:
    """glibc before 2.35: thresholds above 32 MiB are refused."""

    def __init__(self) -> None:
        self.settings: dict[int, int] = {}

    def mallopt(self, name: int, value: int) -> int:
        if name == -3 and value > 32 << 20:
            return 0
        self.settings[name] = value
        return 1


def test_an_old_glibc_gets_what_it_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    library = OldLibrary()
    monkeypatch.setattr(platform, "libc_ver", lambda: ("glibc", "2.31"))
    monkeypatch.setattr(machine.ctypes, "CDLL", lambda name: library)
    assert keep_freed_memory() is True
    assert set(library.settings) == {-3, -1, -2} and library.settings[-3] == 32 << 20


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="mallopt is glibc's")
def test_this_glibc_keeps_memory() -> None:
    code = "from trivium.machine import keep_freed_memory; print(keep_freed_memory())"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "True"


def test_importing_the_machine_imports_nothing_heavy() -> None:
    code = (
        "import sys, trivium.machine, trivium.config, trivium.errors\n"
        "print([name for name in ('torch', 'numpy', 'pydantic', 'yaml') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"


def test_without_a_compiler_a_model_still_runs() -> None:
    """`CXX` hidden, as on a machine that has none."""
    code = (
        "import torch\n"
        "from trivium import ModelConfig, build_model, inspect_machine\n"
        "from trivium.model.mask import Side\n"
        "assert inspect_machine().compiler is None\n"
        "sizes = dict(vocab_size=32, hidden_size=16, num_layers=1, num_heads=2, ffn_size=32)\n"
        "model = build_model(ModelConfig(family='decoder', **sizes))\n"
        "print(tuple(model.head(model(Side.from_ids([[1, 2, 3]]))).shape))"
    )
    assert shutil.which("no-such-compiler") is None
    environment = {**os.environ, "CXX": "no-such-compiler"}
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, env=environment)
    assert done.stdout.strip() == "(1, 3, 32)"


@pytest.mark.skipif(sys.platform != "linux", reason="OpenMP tells its settings where it is GNU's: on Linux")
@pytest.mark.parametrize(("given", "expected"), [({}, "PASSIVE"), ({"OMP_WAIT_POLICY": "active"}, "ACTIVE")])
def test_waiting_threads_give_up_their_core(given: dict[str, str], expected: str) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    command = [sys.executable, "-m", "trivium", "doctor", "--json"]
    found = subprocess.run(
        command, env={**environment, "OMP_DISPLAY_ENV": "true", **given}, capture_output=True, text=True, check=True
    )
    if "OMP_WAIT_POLICY" not in found.stderr:
        pytest.skip("this build of torch has another OpenMP, which does not tell")
    assert f"OMP_WAIT_POLICY = '{expected}'" in found.stderr
