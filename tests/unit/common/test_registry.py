"""Plugins are found by file, named after it, and a wrong one stops the process by name."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from common.registry import Registry, RegistryError

HEAD = """
class Base:
    def pay(self): raise NotImplementedError
    def void(self): raise NotImplementedError
    def name(self): return "x"
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    one = tmp_path / "plugins_under_test"
    one.mkdir()
    monkeypatch.syspath_prepend(str(tmp_path))
    (one / "__init__.py").write_text(
        "from common.registry import Registry\n"
        "from plugins_under_test.base import Base\n"
        "THINGS = Registry('thing', Base, __name__)\n"
    )
    (one / "base.py").write_text(HEAD)
    yield one
    for name in [name for name in sys.modules if name.startswith("plugins_under_test")]:
        del sys.modules[name]


def plugin(folder: Path, file: str, name: str, body: str = "    pass\n") -> None:
    (folder / f"{file}.py").write_text(
        "from plugins_under_test import THINGS\n"
        "from plugins_under_test.base import Base\n\n"
        f"@THINGS.register({name!r})\nclass It(Base):\n{body}"
    )


def load() -> Registry[object]:
    import plugins_under_test  # type: ignore[import-not-found]

    registry: Registry[object] = plugins_under_test.THINGS
    registry.load()
    return registry


def test_loading_finds_every_file_and_what_it_can_do(folder: Path) -> None:
    plugin(folder, "alpha", "alpha", "    def pay(self): return 1\n")
    plugin(folder, "beta", "beta")
    (folder / "_shared.py").write_text("raise AssertionError('not a plugin')")
    things = load()
    things.load()
    assert list(things) == ["alpha", "beta"]
    assert things["alpha"].capabilities == {"pay"}
    assert things["beta"].capabilities == frozenset()
    assert [one.name for one in things.with_capability("pay")] == ["alpha"]
    assert things.find("gamma") is None
    assert type(things.find("alpha")).__name__ == "It"


def test_a_name_other_than_the_files_is_refused(folder: Path) -> None:
    plugin(folder, "alpha", "beta")
    with pytest.raises(RegistryError, match=r"thing 'beta' .* must be in a file of its own name"):
        load()


def test_a_name_twice_is_refused(folder: Path) -> None:
    plugin(folder, "alpha", "alpha")
    with (folder / "alpha.py").open("a") as file:
        file.write("\n@THINGS.register('alpha')\nclass Other(Base):\n    pass\n")
    with pytest.raises(RegistryError, match=r"registered already, by plugins_under_test\.alpha"):
        load()


def test_a_file_that_registers_nothing_is_refused(folder: Path) -> None:
    (folder / "empty.py").write_text("")
    with pytest.raises(RegistryError, match=r"plugins_under_test\.empty registers no thing"):
        load()


def test_a_file_that_cannot_be_loaded_is_named(folder: Path) -> None:
    (folder / "broken.py").write_text("1 / 0")
    with pytest.raises(RegistryError, match=r"plugins_under_test\.broken cannot be loaded"):
        load()


def test_a_class_of_another_base_or_with_needs_is_refused(folder: Path) -> None:
    plugin(folder, "alpha", "alpha", "    def __init__(self, need): pass\n")
    with pytest.raises(RegistryError, match="cannot be made"):
        load()
    with pytest.raises(RegistryError, match="is no int"):
        Registry("number", int, "x").add("a", "text", module="x.a")  # type: ignore[arg-type]


def test_an_unknown_capability_is_refused() -> None:
    registry = Registry("number", int, "x", capabilities=frozenset({"add"}))
    registry.add("one", 1, module="x.one", capabilities=frozenset({"add"}))
    with pytest.raises(RegistryError, match="unknown capabilities: fly"):
        registry.add("two", 2, module="x.two", capabilities=frozenset({"fly"}))
