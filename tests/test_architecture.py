"""The shape of the code itself: import order, bans, sizes, public names, the static gate."""

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from importlib import import_module
from pathlib import Path

import pytest

import trivium
from trivium.hub.starters import list_starters

ROOT = Path(trivium.__file__).parent
FILES = sorted(ROOT.rglob("*.py"))
# A package imports only from itself and from those before it.
ORDER = (
    *(
        "errors",
        "folder",
        "config",
        "machine",
        "tokenizer",
        "model",
        "data",
        "sources",
        "hub",
        "generation",
        "tasks",
        "evaluation",
    ),
    *("training", "pipelines", "story", "demo", "cli", "__main__"),
)
NEVER = {"generation": {"training"}, "pipelines": {"training"}, "model": {"tokenizer", "config", "machine"}}
ONLY_IN = {
    "tokenizers": {"tokenizer"},
    "huggingface_hub": {"hub"},
    "safetensors": {"hub"},
    "pyarrow": {"data"},
    "pydantic": {"config"},
    "lm_eval": {"evaluation"},
    "sacrebleu": {"evaluation"},
    "sklearn": {"evaluation"},
    "rich": {"training"},
    "typer": {"cli"},
    "transformers": set(),
    "peft": set(),
}
# Names that say nothing about what is in a file.
EMPTY_NAMES = {"base", "common", "handler", "helper", "helpers", "manager", "misc", "registry", "util", "utils"}
Function = ast.FunctionDef | ast.AsyncFunctionDef
BUDGETS = {
    "model": 2110,
    "tokenizer": 2765,
    "data": 3450,
    "sources": 1700,
    "hub": 2925,
    "generation": 1740,
    "tasks": 670,
    "evaluation": 2525,
    "training": 2890,
    "pipelines": 1800,
    "cli": 765,
    "single files": 1140,
}


def package_of(path: Path) -> str:
    part = path.relative_to(ROOT).parts[0].removesuffix(".py")
    return "trivium" if part in ("__init__", "__main__") else part


def imports_of(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            yield node.module or ""


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_one_way(path: Path) -> None:
    package = package_of(path)
    for name in imports_of(path):
        top, _, rest = name.partition(".")
        if top in ONLY_IN:
            assert package in ONLY_IN[top], f"{path} imports {name}"
        if top == "trivium" and rest and package != "trivium":
            other = rest.split(".")[0]
            assert ORDER.index(other) <= ORDER.index(package), f"{path} imports {name}"
            assert other not in NEVER.get(package, set()) or other == package, f"{path} imports {name}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_and_functions_stay_short(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 400
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, Function):
            length = (node.end_lineno or 0) - node.lineno + 1
            longest = 120 if path.name == "loop.py" else 80
            assert length <= longest, f"{path.name}:{node.name} has {length} lines"
            if package_of(path) != "cli":  # a verb has as many options as it has
                assert len(node.args.posonlyargs) + len(node.args.args) <= 8, f"{path.name}:{node.name}"


def test_most_functions_are_short() -> None:
    lengths = sorted(
        (node.end_lineno or 0) - node.lineno + 1
        for path in FILES
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, Function)
    )
    median, tenth = lengths[len(lengths) // 2], lengths[len(lengths) * 9 // 10]
    print(f"{len(lengths)} functions: median {median} lines, 90 % up to {tenth}, longest {lengths[-1]}")
    assert median <= 12 and tenth <= 40


def test_files_are_named_after_what_they_hold() -> None:
    assert not EMPTY_NAMES & {path.stem for path in FILES} and not EMPTY_NAMES & {path.parent.name for path in FILES}


def test_packages_stay_in_their_budgets() -> None:
    lines: dict[str, int] = {}
    for path in FILES:
        name = package_of(path) if path.parent != ROOT else "single files"
        lines[name] = lines.get(name, 0) + len(path.read_text(encoding="utf-8").splitlines())
    for name, budget in BUDGETS.items():
        print(f"{name:<14} {lines.get(name, 0):>5} of {budget}")
        assert lines.get(name, 0) <= budget
    assert set(lines) <= set(BUDGETS)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_static_gate(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    forbidden = {"pickle", "marshal", "shelve", "dill"}
    assert not forbidden & {name.split(".")[0] for name in imports_of(path)}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            taken = {f"{node.module}.{alias.name}" for alias in node.names}
            assert not taken & {"yaml.load", "torch.load", "os.system", "builtins.eval", "builtins.exec"}, taken
        if not isinstance(node, ast.Call):
            continue
        called = ast.unparse(node.func)
        if called == "torch.load" and path.name == "pickled.py":  # the one explicit converter, never unrestricted
            assert "weights_only=True" in map(ast.unparse, node.keywords)
            continue
        assert called not in ("eval", "exec", "yaml.load", "torch.load", "__import__", "os.system"), called
        assert not called.endswith("extractall"), called
        assert not {"shell", "allow_pickle", "trust_remote_code"} & {keyword.arg for keyword in node.keywords}, called
        if called.endswith("set_num_threads"):
            assert path.name == "machine.py", "threads are set in one place"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_everything_public_says_what_it_is(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert ast.get_docstring(tree), f"{path} has no docstring"
    for node in tree.body:
        if isinstance(node, Function | ast.ClassDef) and not node.name.startswith("_"):
            assert ast.get_docstring(node), f"{path.name}: {node.name} has no docstring"
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            for inner in node.body:
                if isinstance(inner, Function) and not inner.name.startswith("_"):
                    assert ast.get_docstring(inner), f"{path.name}: {node.name}.{inner.name} has no docstring"


def test_public_names_are_sorted_and_no_module_bears_one() -> None:
    assert list(trivium.__all__) == sorted(trivium.__all__)
    modules = {path.stem for path in FILES} | {path.parent.name for path in FILES}
    assert not set(trivium.__all__) & modules
    assert set(trivium.__all__) <= set(dir(trivium))
    for path in ROOT.rglob("*/__init__.py"):  # what a package hands out never hides a module of its own
        names = vars(import_module(f"trivium.{path.parent.name}")).get("__all__", ())
        assert list(names) == sorted(names), path
        assert not set(names) & {each.stem for each in path.parent.glob("*.py")}, path
    with pytest.raises(AttributeError, match="no attribute 'no_such_name'"):
        trivium.no_such_name  # noqa: B018  # that it raises is what is tested


IMPORT_ALL = """
import importlib, pkgutil, sys, trivium
for module in pkgutil.walk_packages(trivium.__path__, "trivium."):
    importlib.import_module(module.name)
for name in trivium.__all__:
    value = getattr(trivium, name)
    assert callable(value), (name, value)
from trivium import pipeline, pretrain, generate, load
assert all(callable(each) and not hasattr(each, "__path__") for each in (pipeline, pretrain, generate, load))
print(trivium.__file__)
"""


def test_public_names_survive_every_other_import_in_a_fresh_process() -> None:
    subprocess.run([sys.executable, "-c", IMPORT_ALL], check=True, capture_output=True)


def test_help_is_light() -> None:
    code = (
        "import sys; sys.argv = ['trivium', '--help']\n"
        "from trivium.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "print([name for name in ('torch', 'numpy', 'tokenizers', 'pydantic') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip().endswith("[]")


def test_the_wheel_holds_the_public_names(tmp_path: Path) -> None:
    project = ROOT.parent.parent
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path), str(project)]
    subprocess.run(build, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    target = tmp_path / "site"
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(target), str(wheel)]
    subprocess.run(install, check=True, capture_output=True)
    starters = (
        "from trivium.hub.starters import list_starters, starters_folder\nprint(starters_folder(), *list_starters())"
    )
    code = f"import sys; sys.path.insert(0, {str(target)!r})\n{IMPORT_ALL}\n{starters}"
    done = subprocess.run([sys.executable, "-I", "-c", code], check=True, capture_output=True, text=True, cwd=tmp_path)
    where, found = done.stdout.strip().splitlines()
    assert where.startswith(str(target))
    assert found.split(" ") == [str(target / "trivium" / "starters"), *list_starters()]
    assert (target / "trivium" / "starters" / "README.md").is_file()


def collect_fields() -> dict[str, list[str]]:
    found = {}
    for path in FILES:
        name = ".".join(path.relative_to(ROOT.parent).with_suffix("").parts).removesuffix(".__init__")
        for each in vars(import_module(name)).values():
            if isinstance(each, type) and is_dataclass(each) and each.__module__ == name:
                if each.__name__.endswith(("Config", "Recipe", "Scaling")):
                    found[each.__name__] = [f"{field.name}: {field.type}" for field in fields(each)]
    return dict(sorted(found.items()))


def test_config_fields_change_on_purpose_only() -> None:
    """Update with: python -m tests.test_architecture"""
    snapshot = Path(__file__).with_name("config_snapshot.json")
    assert collect_fields() == json.loads(snapshot.read_text(encoding="utf-8"))


if __name__ == "__main__":
    text = json.dumps(collect_fields(), indent=1, ensure_ascii=False) + "\n"
    Path(__file__).with_name("config_snapshot.json").write_text(text, encoding="utf-8")
