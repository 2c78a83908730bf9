"""Config files: what is written reads back equal, and what is wrong is named before any work."""

from dataclasses import FrozenInstanceError, dataclass, field, replace
from pathlib import Path
from typing import ClassVar, Literal

import pytest
import yaml

from trivium.config import SCHEMA, change_config, from_dict, load_config, save_config, to_dict
from trivium.errors import ConfigError
from trivium.model.adapter import LoraConfig
from trivium.training.tuning import TuneRecipe


@dataclass(frozen=True)
class Leaf:
    rate: float = 1e-3
    betas: tuple[float, ...] = (0.9, 0.95)
    path: str | None = None


@dataclass(frozen=True)
class Tree:
    name: Literal["oak", "ash"] = "oak"
    height: int = 10
    leaf: Leaf = field(default_factory=Leaf)
    spare: Leaf | None = None

    def __post_init__(self) -> None:
        if self.height < 0:
            raise ConfigError(f"height is {self.height}; expected 0 or more; raise it")


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_defaults_need_no_file() -> None:
    assert load_config(Tree) == Tree()


@pytest.mark.parametrize("text", ["", "# only a comment\n", "{}\n"])
def test_an_empty_file_is_the_defaults(text: str, tmp_path: Path) -> None:
    assert load_config(Tree, write(tmp_path / "a.yaml", text)) == Tree()


def test_overrides_win_over_the_file_in_their_order(tmp_path: Path) -> None:
    path = write(tmp_path / "a.yaml", "height: 3\nleaf:\n  rate: 0.5\n  path: 橡树\n")
    tree = load_config(Tree, path, ["leaf.rate=0.1", "height=4", "height=5"])
    assert tree == Tree(height=5, leaf=Leaf(rate=0.1, path="橡树"))


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("leaf.rate=3e-4", Tree(leaf=Leaf(rate=3e-4))),
        ("leaf.rate=1", Tree(leaf=Leaf(rate=1.0))),
        ("leaf.betas=[0.8, 0.9]", Tree(leaf=Leaf(betas=(0.8, 0.9)))),
        ("leaf={rate: 2}", Tree(leaf=Leaf(rate=2.0))),
        ("spare={}", Tree(spare=Leaf())),
        ("spare.rate=2", Tree(spare=Leaf(rate=2.0))),
        ("spare=null", Tree()),
        ("leaf.path=a=b", Tree(leaf=Leaf(path="a=b"))),
        ('leaf.path="12"', Tree(leaf=Leaf(path="12"))),
        ("leaf.path=summarize: ", Tree(leaf=Leaf(path="summarize: "))),
        ("leaf.path=", Tree(leaf=Leaf(path=""))),
        ("leaf.path=Summarize ", Tree(leaf=Leaf(path="Summarize "))),
        ("leaf.path=# ", Tree(leaf=Leaf(path="# "))),
        ("leaf.path=what # is", Tree(leaf=Leaf(path="what # is"))),
        ("leaf.path=null", Tree()),
    ],
)
def test_an_override_is_read_as_yaml(override: str, expected: Tree) -> None:
    assert load_config(Tree, None, [override]) == expected


@dataclass(frozen=True)
class Unit:
    """One of two, so that what is named stands alone."""

    STANDS_ALONE: ClassVar[bool] = True
    miles: float = 0.0
    hours: float = 0.0


@dataclass(frozen=True)
class Forest:
    """Groups whose defaults are not their classes' own."""

    leaf: Leaf = field(default_factory=lambda: Leaf(rate=7.0, path="fir"))
    walk: Unit = field(default_factory=lambda: Unit(miles=3.0))
    tree: Tree | None = None


def test_a_group_in_part_keeps_its_holders_defaults() -> None:
    given = {"leaf": {"path": "oak"}, "walk": {"hours": 2}, "tree": {"leaf": {"rate": 3.0}}}
    forest = from_dict(Forest, given)
    assert forest.leaf == Leaf(rate=7.0, path="oak") and forest.walk == Unit(hours=2.0)
    assert forest.tree == Tree(leaf=Leaf(rate=3.0))
    changed = change_config(forest, {"leaf": {"rate": 1.0}, "walk": {"miles": 1}, "tree": {"height": 2}})
    assert changed.leaf == Leaf(rate=1.0, path="oak") and changed.walk == Unit(miles=1.0)
    assert changed.tree == Tree(height=2, leaf=Leaf(rate=3.0))


def test_fine_tuning_keeps_what_it_has_of_its_own() -> None:
    recipe = load_config(TuneRecipe, None, ["save.patience=2", "optimizer.rate=0.001", "schedule.warmup=0.1"])
    own = TuneRecipe()
    assert recipe.save == replace(own.save, patience=2) and recipe.optimizer == replace(own.optimizer, rate=1e-3)
    assert recipe.schedule == replace(own.schedule, warmup=0.1)
    assert load_config(TuneRecipe, None, ["lora=null", "lora.rank=4"]).lora == LoraConfig(rank=4)


def test_what_is_written_reads_back_equal(tmp_path: Path) -> None:
    tree = Tree(name="ash", leaf=Leaf(rate=1 / 3, betas=(0.1, 1e-12), path="a: b\n#"), spare=Leaf())
    save_config(tree, tmp_path / "a.yaml")
    assert load_config(Tree, tmp_path / "a.yaml") == tree
    assert from_dict(Tree, to_dict(tree)) == tree
    assert next(iter(to_dict(tree).items())) == ("schema", SCHEMA)
    assert next(iter(yaml.safe_load((tmp_path / "a.yaml").read_text(encoding="utf-8")))) == "schema"


def test_every_recipe_reads_back_equal(tmp_path: Path) -> None:
    from trivium.training.recipe import load_recipe, resolve_recipe

    for number, family in enumerate(("decoder", "encoder", "encoder_decoder")):
        recipe = resolve_recipe(load_recipe(None, [f"family={family}"]))
        save_config(recipe, tmp_path / f"{number}.yaml")
        assert load_recipe(tmp_path / f"{number}.yaml") == recipe


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("heigth=3", r"there is no setting heigth; did you mean height\?"),
        ("leaf.rates=3", r"there is no setting leaf\.rates; did you mean leaf\.rate\?"),
        ("spare.beta=3", r"there is no setting spare\.beta; did you mean spare\.betas\?"),
        ("zzzzzz=3", "there is no setting zzzzzz; known are name, height, leaf, spare"),
        ("height=tall", "height is 'tall': .*integer.*; change that setting"),
        ("height=1.5", r"height is 1\.5: .*integer.*; change that setting"),
        ("leaf.betas=[a]", r"leaf\.betas\.0 is 'a': .*number.*; change that setting"),
        ("name=elm", "name is 'elm': .*'oak' or 'ash'; change that setting"),
        ("leaf=3", "leaf is 3: .*; change that setting"),
        ("height=-1", "height is -1; expected 0 or more; raise it"),
        ("height", r"'height' is no override; expected key\.sub=value"),
        ("=3", r"'=3' is no override; expected key\.sub=value"),
        ("leaf.path={", r"the value in 'leaf\.path=\{' cannot be read; quote it"),
        ("schema=2", "the settings have schema 2; this version reads up to 1; upgrade trivium"),
        ("schema=one", "the settings have schema one; this version reads up to 1"),
    ],
)
def test_what_is_wrong_is_named(override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        load_config(Tree, None, [override])
    assert "\n" not in str(caught.value)


def test_a_value_is_no_group() -> None:
    with pytest.raises(ConfigError, match=r"height in 'height\.deep=3' is a value, not a group"):
        load_config(Tree, None, ["height=3", "height.deep=3"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- 1\n- 2\n", "holds a list; expected `key: value` lines"),
        ("just words\n", "holds a str; expected `key: value` lines"),
        ("a: [1\n", "cannot be read as YAML"),
        ("!!python/object/apply:os.system ['true']\n", "cannot be read as YAML"),
        ("3: 4\n", "there is no setting 3; known are"),
    ],
)
def test_a_wrong_file_is_named(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        load_config(Tree, write(tmp_path / "a.yaml", text))
    assert "\n" not in str(caught.value)


def test_a_file_that_is_none_is_named(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"there is no recipe at .*missing\.yaml; expected a YAML file; check the path"
    ):
        load_config(Tree, tmp_path / "missing.yaml")
    with pytest.raises(ConfigError, match="cannot be read as YAML"):
        load_config(Tree, tmp_path)
    (tmp_path / "bytes.yaml").write_bytes(b"name: \xff\xfe")
    with pytest.raises(ConfigError, match="cannot be read as YAML"):
        load_config(Tree, tmp_path / "bytes.yaml")


def test_the_mapping_given_is_left_alone_and_the_value_is_frozen() -> None:
    given = {"schema": 1, "height": 3}
    tree = from_dict(Tree, given)
    assert given == {"schema": 1, "height": 3}
    with pytest.raises(FrozenInstanceError):
        tree.height = 4  # type: ignore[misc]  # that is what is tested
