"""Plugins: one file each in a folder, found at start-up, named after their file.

A folder's `__init__.py` holds `PRODUCTS = Registry("product", Product, __name__)`; each file
beside it has one class or object and `@PRODUCTS.register("balance", …)`; wiring calls
`PRODUCTS.load()` once. What is wrong with a plugin stops the process at its start, by name.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

Plugin = TypeVar("Plugin")


class RegistryError(Exception):
    """A plugin breaks a rule of its registry; the message says which, where and why."""


@dataclass(frozen=True, slots=True)
class Registered(Generic[Plugin]):
    """One plugin and what it says of itself."""

    name: str
    """Code by which rows and requests name it; the same as its file's name."""
    plugin: Plugin
    capabilities: frozenset[str]
    """What it can do, in the words of its registry."""
    module: str


class Registry(Mapping[str, Registered[Plugin]], Generic[Plugin]):
    """The plugins of one folder.

    Args:
        noun: what they are, for messages: `product`.
        base: what each of them must be (a class, or a base class of registered classes).
        package: the folder, as a package: `services.payment.products`.
        capabilities: the words that capabilities are taken from; None for any.
    """

    def __init__(
        self,
        noun: str,
        base: type[Plugin],
        package: str,
        *,
        capabilities: frozenset[str] | None = None,
    ) -> None:
        self._noun = noun
        self._base = base
        self._package = package
        self._capabilities = capabilities
        self._registered: dict[str, Registered[Plugin]] = {}

    def register(
        self, name: str, *, capabilities: frozenset[str] = frozenset()
    ) -> Callable[[type[Plugin]], type[Plugin]]:
        """Register a class: one object of it, made without arguments, becomes the plugin.

        Without `capabilities`, those are the public methods of the base that it overrides.

        Raises:
            RegistryError: as `add`; or the class cannot be made without arguments.
        """

        def take(plugin_class: type[Plugin]) -> type[Plugin]:
            try:
                plugin = plugin_class()
            except TypeError as error:
                raise RegistryError(
                    f"{self._noun} {name!r} ({plugin_class.__module__}) cannot be made: {error}"
                ) from error
            self.add(
                name,
                plugin,
                capabilities=capabilities or overridden_methods(plugin_class, self._base),
                module=plugin_class.__module__,
            )
            return plugin_class

        return take

    def add(
        self,
        name: str,
        plugin: Plugin,
        *,
        module: str,
        capabilities: frozenset[str] = frozenset(),
    ) -> Plugin:
        """Register an object; `module` is the file's `__name__`.

        Raises:
            RegistryError: two of one name, a name other than the file's, no object of the base, or
                an unknown capability.
        """
        place = f"{self._noun} {name!r} ({module})"
        earlier = self._registered.get(name)
        if earlier is not None:
            raise RegistryError(f"{place} is registered already, by {earlier.module}")
        if module.rpartition(".")[2] != name:
            raise RegistryError(f"{place} must be in a file of its own name, {name}.py")
        if not isinstance(plugin, self._base):
            raise RegistryError(f"{place} is no {self._base.__name__}")
        if self._capabilities is not None and not capabilities <= self._capabilities:
            unknown = ", ".join(sorted(capabilities - self._capabilities))
            raise RegistryError(f"{place} names unknown capabilities: {unknown}")
        self._registered[name] = Registered(name, plugin, capabilities, module)
        return plugin

    def load(self) -> None:
        """Import every file of the folder, so that each registers its plugin; twice is once.

        Files whose name begins with an underscore, and the folder's `base.py`, are no plugins.

        Raises:
            RegistryError: a file that registers nothing, or one that cannot be imported.
        """
        package = importlib.import_module(self._package)
        for found in pkgutil.iter_modules(package.__path__):
            if found.name.startswith("_") or found.name == "base":
                continue
            module = f"{self._package}.{found.name}"
            try:
                importlib.import_module(module)
            except RegistryError:
                raise
            except Exception as error:
                raise RegistryError(f"{self._noun} {module} cannot be loaded: {error!r}") from error
            if found.name not in self._registered:
                raise RegistryError(f"{module} registers no {self._noun}")

    def find(self, name: str) -> Plugin | None:
        """Return the plugin called `name`, or None."""
        found = self._registered.get(name)
        return None if found is None else found.plugin

    def with_capability(self, capability: str) -> list[Registered[Plugin]]:
        """Return those that can do something, by name."""
        return [one for one in self.values() if capability in one.capabilities]

    def __getitem__(self, name: str) -> Registered[Plugin]:
        return self._registered[name]

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._registered))

    def __len__(self) -> int:
        return len(self._registered)


def overridden_methods(plugin_class: type, base: type) -> frozenset[str]:
    """Return the names of the base's public methods that a class has its own version of."""
    return frozenset(
        name
        for name in dir(base)
        if not name.startswith("_")
        and callable(getattr(base, name))
        and getattr(plugin_class, name) is not getattr(base, name)
    )
