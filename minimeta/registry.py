"""The building blocks of settings: fields with a help text, and named classes.

A dataclass that is part of a run's settings owns its fields, their help and
their validation. ``setting`` declares such a field. A ``Registry`` maps the
names that stand in a run's JSON and on the command line to classes. A class of
the user's own becomes a setting by one line, ``@REGISTRY.register("name")``.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import MISSING, field
from typing import Any, TypeVar

from .errors import SettingsError

Class = TypeVar("Class", bound=type)


class Registry(Mapping[str, type]):
    """Classes by name, in the order of registration.

    ``kind`` names the kind of class in errors.
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._classes: dict[str, type] = {}

    def register(self, name: str) -> Callable[[Class], Class]:
        """A class decorator that gives the class this name.

        Raises
        ------
        SettingsError
            if another class already has the name.
        """

        def named(cls: Class) -> Class:
            known = self._classes.setdefault(name, cls)
            if known is not cls and _full_name(known) != _full_name(cls):
                raise SettingsError(
                    f"the {self.kind} name {name!r} belongs to {known.__name__} already: "
                    f"register {cls.__name__} under another name"
                )
            self._classes[name] = cls
            return cls

        return named

    @contextmanager
    def registered(self, name: str, cls: type) -> Iterator[None]:
        """``cls`` has this name inside the block, and no longer."""
        self.register(name)(cls)
        try:
            yield
        finally:
            del self._classes[name]

    def __getitem__(self, name: str) -> type:
        """The class named ``name``.

        Raises
        ------
        SettingsError
            if no class has the name.
        """
        try:
            return self._classes[name]
        except (KeyError, TypeError):
            raise SettingsError(
                f"unknown {self.kind} {name!r}: choose one of {', '.join(self._classes)}; "
                f"a class of your own must be registered first"
            ) from None

    def get(self, name: str, default: Any = None) -> Any:
        """The class, or ``default`` where no class has the name."""
        return self._classes.get(name, default)

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and name in self._classes

    def __iter__(self) -> Iterator[str]:
        return iter(self._classes)

    def __len__(self) -> int:
        return len(self._classes)

    def name_of(self, member: Any) -> str:
        """The name of a class, or of an instance's class.

        Raises
        ------
        SettingsError
            if the class is not registered.
        """
        cls = member if isinstance(member, type) else type(member)
        for name, known in self._classes.items():
            if known is cls:
                return name
        raise SettingsError(
            f"{cls.__name__} is not a registered {self.kind}: give the class a name with "
            f'@register("..."), before its settings are written or read'
        )


def _full_name(cls: type) -> tuple[str, str]:
    """The module and name of a class, which a reload of the module does not
    change."""
    return cls.__module__, cls.__qualname__


def setting(
    default: Any = MISSING,
    help: str = "",
    *,
    flag: str | None = None,
    least: float | None = None,
    below: float | None = None,
    choices: Collection[str] | None = None,
    registry: Registry | None = None,
    prefix: str = "",
    renamed: Mapping[str, str] | None = None,
    defaults: Mapping[str, Any] | None = None,
    **options: Any,
) -> Any:
    """A field of a dataclass that is a setting.

    Parameters
    ----------
    default
        the default value of the setting. Without a default, a value must be
        given.
    help
        the text of ``minimeta train --help``.
    flag
        its name on the command line, where that is not the field's own. For a
        field that holds an instance of a registered class, the flag chooses
        the class.
    least, below
        the bounds of a number: ``least <= value < below``. With ``least``, a
        number must be finite, too.
    choices
        the words that a text may be, where its type does not name them.
    registry
        for a field that holds an instance of a registered class: the classes.
    prefix, renamed, defaults
        for a field that holds a dataclass. Flags of that dataclass's fields are
        ``prefix`` and their own name, but for those that ``renamed`` maps to
        another. ``defaults`` replaces defaults of its fields, by their names.
    options
        further arguments of ``dataclasses.field``.
    """
    told = {"help": help, "flag": flag, "least": least, "below": below, "choices": choices}
    nested = {"registry": registry, "prefix": prefix, "renamed": dict(renamed or {})}
    metadata = told | nested | {"defaults": dict(defaults or {})}
    return field(default=default, metadata=metadata, **options)
