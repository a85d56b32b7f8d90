"""The shape of the house: a room imports only from rooms before it, only the command line prints, draws are keyed."""

from __future__ import annotations

import ast
import dataclasses
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import fedecho
from fedecho.config.registry import algorithm_classes, stage_classes

HOUSE = Path(fedecho.__file__).parent
FILES = sorted(HOUSE.rglob("*.py"))

ROOMS = [
    "core",
    "objectives",
    "algorithms",
    "stages",
    "server",
    "data",
    "learning",
    "executors",
    "runs",
    "simulation",
    "config",
    "experiment",
    "studies",
    "report",
    "flower",
    "cli",
    "__main__",
]
"""From the ground up."""

SEES = {
    "core": {"core"},
    "algorithms": {"core", "algorithms.base"},
    "objectives": {"core", "objectives"},
    "stages": {"core", "objectives.predictions", "algorithms.base", "stages"},
    "server": {"core", "algorithms", "stages", "server"},
    "data": {"core", "data"},
    "executors": {"core", "executors"},
    "runs": {"core", "objectives", "runs"},
    "simulation": {"core", "data", "executors", "runs", "simulation"},
}
"""Rooms that may see less than all that lies below them."""


def module_of(path: Path) -> str:
    """ "fedecho.core.keys" for its file."""
    parts = path.relative_to(HOUSE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_of(path) for path in FILES}


def imports(path: Path) -> Iterator[str]:
    """The modules of the house that a file imports, anywhere in it, without the leading "fedecho."."""
    module = module_of(path)
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            names = [f"{base}.{alias.name}" if f"{base}.{alias.name}" in MODULES else base for alias in node.names]
        yield from (name.removeprefix("fedecho.") for name in names if name.startswith("fedecho."))


def room(module: str) -> str:
    return module.split(".")[0]


def test_the_test_sees_imports() -> None:
    """Else what follows would hold of any house."""
    assert set(imports(HOUSE / "cli" / "studies.py")) >= {"core.errors", "studies.compare", "config.toml", "report"}
    assert "data.devices" in set(imports(HOUSE / "simulation" / "delay_models" / "phones.py"))  # in a function
    assert set(imports(HOUSE / "executors" / "inline.py")) == {"core.messages", "executors.base"}
    assert {room(module_of(path).removeprefix("fedecho.")) for path in FILES} - {"fedecho"} <= set(ROOMS)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(HOUSE)))
def test_a_room_imports_only_from_rooms_before_it(path: Path) -> None:
    if path == HOUSE / "__init__.py":
        return  # the front door shows everything
    here = room(module_of(path).removeprefix("fedecho."))
    for seen in imports(path):
        assert room(seen) == here or ROOMS.index(room(seen)) < ROOMS.index(here), f"{here} imports {seen}"
        allowed = SEES.get(here) if path.name != "__init__.py" else None  # a package shows all that it holds
        assert allowed is None or seen in allowed or room(seen) in allowed, f"{here} may not see {seen}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(HOUSE)))
def test_only_the_command_line_prints(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if path.parent.name != "cli":
            assert not (isinstance(node, ast.Name) and node.id == "print"), f"line {node.lineno}"
            name = ast.unparse(node) if isinstance(node, ast.Attribute) else ""
            assert name not in ("sys.stdout", "sys.stdout.write", "sys.stderr.write"), name


GLOBAL_DRAWS = re.compile(
    r"np\.random\.(?!Generator$|Philox$)\w+|numpy\.random\.\w+|random\.\w+|torch\.(manual_seed|seed|rand\w*|normal|"
    r"multinomial|bernoulli|default_generator)(\.\w+)?|torch\.cuda\.manual_seed\w*|torch\.random\.\w+|\w+\.(normal_|uniform_|"
    r"bernoulli_|random_)"
)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(HOUSE)))
def test_every_draw_is_keyed(path: Path) -> None:
    """NumPy's, torch's and Python's global generators are touched in core/keys.py alone."""
    if path.name == "keys.py":
        return
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Attribute):
            name = ast.unparse(node)
            assert name == "np.random.Generator" or not GLOBAL_DRAWS.fullmatch(name), f"{name}, line {node.lineno}"
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = {alias.name for alias in node.names} | {getattr(node, "module", None)}
            assert not names & {"random", "numpy.random", "torch.random", "secrets", "uuid"}, f"line {node.lineno}"


def test_global_draws_are_recognised() -> None:
    for name in (
        "np.random.rand",
        "np.random.default_rng",
        "torch.manual_seed",
        "torch.randn",
        "random.random",
        "x.normal_",
    ):
        assert GLOBAL_DRAWS.fullmatch(name), name
    for name in ("np.random.Generator", "rng.normal", "torch.zeros", "key.uniform"):
        assert not GLOBAL_DRAWS.fullmatch(name), name


def test_the_limits_of_files_and_functions() -> None:
    """A file over 400 lines is two things; so is a function over 60. The top of the package is for the front door."""
    assert {path.name for path in HOUSE.glob("*.py")} == {"__init__.py", "__main__.py"}
    for path in FILES:
        text = path.read_text(encoding="utf-8")
        assert len(text.splitlines()) <= 400, path
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = (node.end_lineno or node.lineno) - node.lineno + 1
                assert lines <= 60, f"{path.name}:{node.name} has {lines} lines"


def test_public_names() -> None:
    names = fedecho.__all__
    assert names == sorted(names)
    assert len(set(names)) == len(names)
    for name in names:
        assert getattr(fedecho, name).__doc__, name
    for path in FILES:
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
                module = __import__(module_of(path), fromlist=["__all__"])
                listed = module.__all__
                assert sorted(listed) == sorted(set(listed)), path
                assert all(hasattr(module, name) for name in listed), path


RULES = {**algorithm_classes(), **stage_classes()}


@pytest.mark.parametrize("name", RULES)
def test_a_rule_says_where_it_comes_from(name: str) -> None:
    """Paper, year and BibTeX; and every field, in order, by name."""
    cls = RULES[name]
    text = " ".join((cls.__doc__ or "").split())
    assert cls.__dict__["name"] == name
    assert re.search(r"\b(19|20)\d\d\b|The same paper as|Our own", text), "no year of a paper"
    assert re.search(r"arXiv \d{4}\.\d{5}|\*[A-Z][^*]{10,}\*|The same paper as `\w+`|Our own", text), "no paper"
    entry = r"@\w+\{\w+, title=\{.+\}, author=\{.+\}, \w+=\{.+\}, year=\{\d{4}\}\}"
    assert all(re.fullmatch(entry, cited) for cited in cls.citation.split("\n"))
    assert cls.citation.count("{") == cls.citation.count("}")
    documented = re.findall(r"^ {8}(\w+):", (cls.__doc__ or "").partition("Attributes:")[2], flags=re.MULTILINE)
    assert documented == [f.name for f in dataclasses.fields(cls)]
    assert cls.__dataclass_params__.frozen
    cls()  # every field has a default


@pytest.mark.parametrize("name", stage_classes())
def test_a_stage_names_the_four_values_of_its_step_that_are_tried(name: str) -> None:
    ((setting, values),) = stage_classes()[name].grid.items()
    assert setting in {f.name for f in dataclasses.fields(stage_classes()[name])}  # type: ignore[arg-type]
    assert len(values) == 4
    assert list(values) == sorted(set(values))


def test_settings_are_documented() -> None:
    from fedecho.config.tables import ExecutorConfig, ExperimentConfig, ModelConfig, RecordsConfig
    from fedecho.core.schedules import Schedule
    from fedecho.data.federation import DataConfig
    from fedecho.learning.settings import ClientConfig
    from fedecho.server.settings import ServerConfig, Stop

    own = (ExperimentConfig, ModelConfig, ExecutorConfig, RecordsConfig)
    for cls in (*own, DataConfig, ClientConfig, ServerConfig, Schedule, Stop):
        text = (cls.__doc__ or "").partition("Attributes:")[2]
        documented = re.findall(r"^ {8}(\w+):", text, flags=re.MULTILINE)
        assert documented == [f.name for f in dataclasses.fields(cls)], cls.__name__
