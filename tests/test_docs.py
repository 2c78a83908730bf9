"""What the documents say is run: Python snippets, shell verbs, links, and the length of the README."""

import ast
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

from trivium.tasks.task import TASKS

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "README.zh.md", *sorted((ROOT / "docs").rglob("*.md"))]
# Pages in two languages, which run the same code.
PAIRS = [
    ("README.md", "README.zh.md"),
    ("docs/en/article.md", "docs/zh/article.md"),
    ("docs/en/evaluation.md", "docs/zh/evaluation.md"),
    ("docs/en/finetuning.md", "docs/zh/finetuning.md"),
    ("docs/en/starters.md", "docs/zh/starters.md"),
]
RUN = [page for page in PAGES if str(page.relative_to(ROOT)) not in {chinese for _, chinese in PAIRS}]


def snippets(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("page", RUN, ids=lambda page: page.name)
def test_python_snippets_run(page: Path, tmp_path: Path) -> None:
    (tmp_path / "recipes").symlink_to(ROOT / "recipes")
    for code in snippets(page, "python"):
        subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path, capture_output=True)


@pytest.mark.parametrize("page", [*PAGES, ROOT / "life.sh"], ids=lambda page: page.name)
def test_shell_verbs_exist(page: Path) -> None:
    from typer.main import get_command

    from trivium.cli import app

    command = get_command(app)
    text = page.read_text(encoding="utf-8") if page.suffix == ".sh" else "\n".join(snippets(page, "bash"))
    for line in re.findall(r"^\s*trivium (.+?)(?:\s+#.*)?$", text, re.MULTILINE):
        words = line.split()
        group, path = command, iter(words)
        while hasattr(group, "commands"):
            group = group.commands[next(path)]
        options = {name for parameter in group.params for name in parameter.opts}
        assert {word for word in words if word.startswith("--")} <= options, line


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8")):
        assert target.startswith("http") or (page.parent / target).exists(), target


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 200


@pytest.mark.parametrize(("english", "chinese"), PAIRS, ids=lambda name: name)
def test_both_languages_run_the_same_code(english: str, chinese: str) -> None:
    for language in ("python", "py", "bash"):
        one, other = (snippets(ROOT / name, language) for name in (english, chinese))
        if language != "bash" or english.startswith("docs"):
            assert [re.sub(r"\s*#.*", "", code) for code in one] == [re.sub(r"\s*#.*", "", code) for code in other]


def test_files_that_pages_name_exist() -> None:
    for page in PAGES:
        for name in re.findall(r"`(src/trivium/[\w./]*)`", page.read_text(encoding="utf-8")):
            assert (ROOT / name).exists(), f"{page.name} names {name}"


@pytest.mark.parametrize("script", sorted((ROOT / "benchmarks").glob("*.py")), ids=lambda path: path.stem)
def test_benchmarks_import_what_exists(script: Path) -> None:
    """Their imports are lazy and they run for hours: a name that moved would be found at the end."""
    tree = ast.parse(script.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "trivium":
            module = import_module(str(node.module))
            for each in node.names:
                assert hasattr(module, each.name), f"{script.name}:{node.lineno}: {node.module} has no {each.name}"


@pytest.mark.parametrize("recipe", sorted((ROOT / "recipes").glob("*.yaml")), ids=lambda path: path.name)
def test_recipes_load(recipe: Path) -> None:
    from trivium import TuneRecipe, load_config, load_recipe

    if recipe.stem.startswith("finetune_"):
        assert load_config(TuneRecipe, recipe).task in TASKS
    elif not recipe.stem.startswith("starter_"):  # those are in training/test_starter.py
        assert load_recipe(recipe).family == recipe.stem
