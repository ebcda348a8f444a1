"""Dataclasses as settings: their fields as flags, as JSON, and back.

A tree of settings is a dataclass. Its fields are leaves (numbers, words, tuples
of numbers), plain dataclasses, or choices: instances of a registered class.
Every leaf and every choice has a flag, a name that is unique in the tree. The
functions here walk such a tree. The fields declare their own names, help,
bounds and defaults (``registry.setting``), so nothing is listed twice.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import MISSING, fields, is_dataclass
from difflib import get_close_matches
from types import NoneType, UnionType
from typing import Any, Literal, NamedTuple, Union, get_args, get_origin, get_type_hints

from .errors import SettingsError, did_you_mean
from .registry import Registry

Flags = dict[str, Any]


class Field(NamedTuple):
    """One field in a tree of settings; ``place`` is where its fields are."""

    name: str
    flag: str
    hint: Any
    default: Any
    help: str
    least: float | None
    below: float | None
    choices: tuple[str, ...]
    registry: Registry | None
    place: Place

    @property
    def is_choice(self) -> bool:
        """Whether the field holds an instance of a registered class."""
        return self.registry is not None

    @property
    def is_nested(self) -> bool:
        """Whether the field holds a plain dataclass."""
        return not self.is_choice and is_dataclass(self.hint)


class Place(NamedTuple):
    """The flags and defaults of a dataclass's fields at its place in a tree."""

    prefix: str = ""
    renamed: Mapping[str, str] = {}
    defaults: Mapping[str, Any] = {}


_TOP = Place()


def fields_of(cls: type, place: Place = _TOP) -> list[Field]:
    """The fields of a dataclass that its constructor takes, in order."""
    hints = get_type_hints(cls)
    return [_field(each, hints[each.name], place) for each in fields(cls) if each.init]


def _field(each: Any, hint: Any, place: Place) -> Field:
    told = each.metadata
    own = told.get("flag") or each.name
    flag = place.renamed.get(each.name, place.prefix + own)
    below = Place(
        place.prefix + told.get("prefix", ""), told.get("renamed", {}), told.get("defaults", {})
    )
    words = get_args(hint) if get_origin(hint) is Literal else tuple(told.get("choices") or ())
    bounds = told.get("least"), told.get("below")
    default = place.defaults.get(each.name, each.default)
    help = (f"{place.prefix.rstrip('_')}: " if place.prefix else "") + told.get("help", "")
    return Field(each.name, flag, hint, default, help, *bounds, words, told.get("registry"), below)


# A tree as flags.


def flags_of(tree: Any, place: Place = _TOP) -> Flags:
    """The flat form of a tree: every flag that it reads, with its JSON value.

    Raises
    ------
    SettingsError
        if two fields have the same flag, or a value does not fit its field.
    """
    flags: Flags = {}
    for each in fields_of(type(tree), place):
        value = getattr(tree, each.name)
        if each.is_choice:
            added = {each.flag: each.registry.name_of(value)} | flags_of(value, each.place)
        elif each.is_nested:
            added = flags_of(value, each.place)
        else:
            added = {each.flag: written(value_of(each, value))}
        for flag in added:
            if flag in flags:
                raise SettingsError(
                    f"two settings are called {flag!r}: give one another flag, "
                    f'as in setting(..., flag="name")'
                )
        flags |= added
    return flags


def made_from(cls: type, flags: Flags, fallback: Flags, place: Place = _TOP) -> Any:
    """The tree of ``cls`` that ``flags`` describe.

    A field whose flag is missing has its default. Without a default, it has its
    value in ``fallback``.

    Raises
    ------
    SettingsError
        if a value is missing or does not fit its field; names the flag.
    """
    arguments = {}
    for each in fields_of(cls, place):
        if each.is_nested or each.is_choice:
            kind = each.hint
            if each.is_choice:
                kind = each.registry[_chosen(each, flags, fallback, cls)]
            own = flags_of(each.default, each.place) if type(each.default) is kind else {}
            arguments[each.name] = made_from(kind, own | flags, fallback, each.place)
        else:
            arguments[each.name] = value_of(each, _given(each, flags, fallback, cls))
    return cls(**arguments)


def _chosen(each: Field, flags: Flags, fallback: Flags, cls: type) -> str:
    """The name of the class that a field holds."""
    name = flags.get(each.flag, MISSING)
    if name is MISSING and each.default is not MISSING:
        return each.registry.name_of(each.default)
    name = _given(each, flags, fallback, cls)
    if not isinstance(name, str) or name not in each.registry:
        known = [word for word in each.registry if word == str(name).lower()]
        hint = did_you_mean(known) or "; a class of your own must be registered first"
        raise SettingsError(
            f"{each.flag} must be one of {', '.join(each.registry)}, got {name!r}{hint}"
        )
    return name


def _given(each: Field, flags: Flags, fallback: Flags, cls: type) -> Any:
    """The value of a flag, else its default, else its value in ``fallback``."""
    for value in (flags.get(each.flag, MISSING), each.default, fallback.get(each.flag, MISSING)):
        if value is not MISSING:
            return value
    raise SettingsError(f"{cls.__name__} needs a value for {each.flag}: set {each.flag}")


def expanded(cls: type, flags: Flags) -> Flags:
    """``flags`` in which an object stands for the flags of its fields.

    The object is an instance of a registered class under the flag of a choice,
    or a dataclass under the name of its field. Flags of single fields that
    stand beside it win.
    """
    made: Flags = {}
    for each in fields_of(cls):
        name = each.flag if each.is_choice else each.name
        value = flags.get(name)
        if each.is_choice and type(value) in each.registry.values():
            made |= flags_of(value, each.place)
            flags = flags | {name: each.registry.name_of(value)}
        elif each.is_nested and isinstance(value, each.hint):
            made |= flags_of(value, each.place)
            flags = {flag: one for flag, one in flags.items() if flag != name}
    return made | flags


# A tree as nested JSON.


def json_of(tree: Any, place: Place = _TOP) -> dict[str, Any]:
    """The nested form of a tree: an object for each dataclass.

    The object of a choice holds the registered name as "type".
    """
    stored: dict[str, Any] = {}
    for each in fields_of(type(tree), place):
        value = getattr(tree, each.name)
        if each.is_choice:
            name = each.registry.name_of(value)
            stored[each.name] = {"type": name} | json_of(value, each.place)
        elif each.is_nested:
            stored[each.name] = json_of(value, each.place)
        else:
            stored[each.name] = written(value_of(each, value))
    return stored


def flags_in(cls: type, stored: Any) -> Flags:
    """The flags that nested JSON gives.

    Raises
    ------
    SettingsError
        if a name is unknown, or the value of a dataclass is not an object.
    """
    flags: Flags = {}
    unknown: list[str] = []
    if not isinstance(stored, Mapping):
        raise SettingsError(f"settings must be an object, got {stored!r}")
    _read(cls, stored, _TOP, "", flags, unknown)
    if unknown:
        raise SettingsError(f"unknown settings: {', '.join(sorted(unknown))}")
    return flags


def _read(
    cls: type, stored: Any, place: Place, path: str, flags: Flags, unknown: list[str]
) -> None:
    """Add the flags and the unknown names of the object ``stored``."""
    known = {each.name: each for each in fields_of(cls, place)}
    unknown += [path + str(name) for name in stored if name not in known]
    for name, each in known.items():
        if name not in stored:
            continue
        value, here = stored[name], f"{path}{name}."
        if (each.is_choice or each.is_nested) and not isinstance(value, dict):
            raise SettingsError(f"{path}{name} must be an object of settings, got {value!r}")
        if each.is_nested:
            _read(each.hint, value, each.place, here, flags, unknown)
        elif each.is_choice:
            if "type" not in value:
                raise SettingsError(f"{path}{name} lacks its type: one of {_or(each.registry)}")
            flags[each.flag] = value["type"]
            chosen = each.registry[_chosen(each, flags, {}, cls)]
            rest = {key: one for key, one in value.items() if key != "type"}
            _read(chosen, rest, each.place, here, flags, unknown)
        else:
            flags[each.flag] = value


def typed_json(registry: Registry, member: Any) -> dict[str, Any]:
    """An instance of a registered class as JSON: its name, and its fields.

    Raises
    ------
    SettingsError
        if the class is not registered, or a field holds no JSON value.
    """
    return {"type": registry.name_of(member)} | json_of(member)


def made_of_json(registry: Registry, stored: Any) -> Any:
    """The instance of a registered class that ``typed_json`` wrote.

    Raises
    ------
    SettingsError
        if ``stored`` has another form, or names a class that is not registered.
    """
    if not isinstance(stored, dict) or not isinstance(stored.get("type"), str):
        raise SettingsError(
            f'a {registry.kind} must be an object with a "type", one of {", ".join(registry)}'
        )
    return made_of_object(registry[stored["type"]], stored, {"type"})


def made_of_object(cls: type, stored: Any, known: Collection[str] = ()) -> Any:
    """The instance of a dataclass that ``json_of`` wrote.

    Fields are read by their names, so that classes may be nested in themselves.
    ``known`` are names in ``stored`` that are no fields.

    Raises
    ------
    SettingsError
        if ``stored`` has another form.
    """
    if not isinstance(stored, dict):
        raise SettingsError(f"{cls.__name__} must be an object of settings, got {stored!r}")
    fields = {each.name: each for each in fields_of(cls)}
    if unknown := sorted(stored.keys() - fields.keys() - set(known)):
        raise SettingsError(f"unknown settings of {cls.__name__}: {', '.join(unknown)}")
    arguments = {}
    for name, each in fields.items():
        if name in stored and each.is_choice:
            arguments[name] = made_of_json(each.registry, stored[name])
        elif name in stored and each.is_nested:
            arguments[name] = made_of_object(each.hint, stored[name])
        elif name in stored:
            arguments[name] = value_of(each, stored[name])
        elif each.default is MISSING:
            raise SettingsError(f"{cls.__name__} needs a value for {name}")
    return cls(**arguments)


# All flags of all registered classes.


class Owner(NamedTuple):
    """A field, and the choices (flag, name) under which it is read."""

    field: Field
    under: tuple[tuple[str, str], ...]


def every_flag(cls: type) -> dict[str, list[Owner]]:
    """All flags that a tree of ``cls`` may read, each with its fields."""
    found: dict[str, list[Owner]] = {}
    for owner in _walk(cls, _TOP, ()):
        found.setdefault(owner.field.flag, []).append(owner)
    return found


def _walk(cls: type, place: Place, under: tuple[tuple[str, str], ...]) -> Iterator[Owner]:
    for each in fields_of(cls, place):
        if each.is_nested:
            yield from _walk(each.hint, each.place, under)
            continue
        yield Owner(each, under)
        for name in each.registry or ():
            yield from _walk(each.registry[name], each.place, (*under, (each.flag, name)))


def refuse_unread(cls: type, asked: list[str], read: Flags) -> None:
    """Raise a SettingsError if a flag in ``asked`` is not in ``read``.

    Such a flag is unknown, or belongs to classes that were not chosen.
    """
    unread = [flag for flag in asked if flag not in read]
    if not unread:
        return
    known = every_flag(cls)
    for flag in unread:
        if flag not in known:
            raise SettingsError(f"unknown setting {flag!r}{did_you_mean(_near(flag, known))}")
    raise SettingsError(_belongs(unread[0], known, read))


def _near(flag: str, known: dict[str, list[Owner]]) -> list[str]:
    """The known flags that an unknown one may mean.

    A field may have a flag of another name, as the outer rule's lr has.
    """
    parts = set(flag.split("_"))
    near = [each for each in known if parts <= set(each.split("_"))]
    near += [
        each
        for each, owners in known.items()
        if owners[0].field.name in parts and each not in near and owners[0].field.name != each
    ]
    return near[:3] or get_close_matches(flag, known, 1)


def _belongs(flag: str, known: dict[str, list[Owner]], read: Flags) -> str:
    """A message that names the classes that read an unread flag."""

    def agrees(owner: Owner) -> int:  # number of choices made on the way to the field
        made = [read.get(by) == name for by, name in owner.under]
        return [*made, False].index(False)

    nearest = max(agrees(owner) for owner in known[flag])
    owners = [owner for owner in known[flag] if agrees(owner) == nearest]
    by = owners[0].under[nearest][0]
    names = list(dict.fromkeys(owner.under[nearest][1] for owner in owners))
    told = f"{flag} belongs to {', '.join(names)}: leave it out, or set {by} to {_or(names)}"
    instead = [
        other
        for other, all_owners in known.items()
        if other in read and all((by, read.get(by)) in owner.under for owner in all_owners)
    ]
    return told + (f"; {read[by]} reads {', '.join(instead)} instead" if instead else "")


def _or(names: Any) -> str:
    """One name as it is, several as "one of these", a registry as its names."""
    if isinstance(names, Registry):
        return ", ".join(names)
    return names[0] if len(names) == 1 else "one of these"


# Values.


def written(value: Any) -> Any:
    """A leaf's JSON value: a tuple as a list, a non-finite number as a word."""
    if isinstance(value, tuple):
        return [written(each) for each in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value


def value_of(field: Field, value: Any) -> Any:
    """The value of a leaf, from Python or from JSON.

    Raises
    ------
    SettingsError
        if the value does not fit the field's type, choices or bounds.
    """
    if field.choices:
        if not isinstance(value, str) or value not in field.choices:
            raise SettingsError(
                f"{field.flag} must be one of {', '.join(field.choices)}, got {value!r}"
            )
        return value
    kinds = kinds_of(field.hint)
    for kind in kinds:
        fitting = _fitting(kind, value, alone=len(kinds) == 1)
        if fitting is not MISSING:
            _check_bounds(field, fitting)
            return fitting
    wanted = " or ".join(_NAMES.get(kind, "numbers such as 64,64") for kind in kinds)
    if type(value) is int and int in kinds:
        wanted += " below 2^63"
    raise SettingsError(f"{field.flag} must be {wanted}, got {value!r}")


_NAMES = {bool: "true or false", int: "a whole number", float: "a number", str: "a word"}
_NAMES |= {NoneType: "none", dict: "a JSON object"}
_LARGEST = 2**63 - 1  # of the whole numbers that arrays hold


def kinds_of(hint: Any) -> list[Any]:
    """The types that a leaf with this type hint may have.

    They are among bool, int, float, str, NoneType, tuple[int, ...] and
    tuple[float, ...]; arrays are not settings.
    """
    if get_origin(hint) in (Union, UnionType):
        return [kind for each in get_args(hint) for kind in kinds_of(each)]
    if get_origin(hint) is Literal:
        return [str]
    return [] if hint is Any else [hint]


def _fitting(kind: Any, value: Any, alone: bool = True) -> Any:
    """``value`` as the type ``kind``, or MISSING if it does not fit.

    A text fits a tuple only if the tuple is the field's one type (``alone``).
    """
    if getattr(value, "ndim", 1) == 0:  # a NumPy number
        value = value.item()
    if get_origin(kind) is tuple:
        if isinstance(value, str) and alone:
            value = _numbers(kind, value)
        if type(value) is int and alone:
            value = (value,)
        if not isinstance(value, (tuple, list)):
            return MISSING
        each = tuple(_fitting(get_args(kind)[0], one) for one in value)
        return MISSING if MISSING in each else each
    if kind is float:
        if isinstance(value, str):
            return float(value) if value in ("inf", "-inf", "nan") else MISSING
        return value if type(value) is float else _as_real(value)
    if kind is int and type(value) is int and abs(value) > _LARGEST:
        return MISSING
    return value if type(value) is kind else MISSING


def _as_real(value: Any) -> Any:
    """A whole number as it is, or as a float if it is large; else MISSING."""
    if type(value) is not int:
        return MISSING
    try:
        return value if abs(value) <= _LARGEST else float(value)
    except OverflowError:
        return MISSING


def _numbers(kind: Any, text: str) -> tuple[Any, ...] | None:
    """The tuple of a text such as 64,64; None if the text is different."""
    try:
        return tuple(get_args(kind)[0](part) for part in text.split(",") if part.strip())
    except ValueError:
        return None


def _check_bounds(field: Field, value: Any) -> None:
    """Raise a SettingsError if a number is out of bounds."""
    for each in value if isinstance(value, tuple) else (value,):
        bounds = [field.least is not None, field.below is not None]
        if type(each) not in (int, float) or not any(bounds):
            continue
        least = -math.inf if field.least is None else field.least
        below = math.inf if field.below is None else field.below
        if least <= each < below:
            continue
        told = [f"{least:g} or more", f"below {below:g}"]
        words = [word for word, bound in zip(told, bounds, strict=True) if bound]
        if not bounds[1] and not math.isfinite(each):
            words.append("finite")
        raise SettingsError(f"{field.flag} must be {' and '.join(words)}, got {each}")


def reader(field: Field) -> Callable[[str], Any]:
    """A function from a word of the command line to a leaf's value.

    Its name is the type that argparse shows. It raises ValueError if the word
    does not fit.
    """
    kinds = kinds_of(field.hint)

    def read(word: str) -> Any:
        if NoneType in kinds and word == "none":
            return None
        for kind in kinds:
            try:
                if get_origin(kind) is not tuple and kind is not NoneType:
                    return kind(word)
                if numbers := _numbers(kind, word):
                    return numbers
            except (ValueError, IndexError):
                continue
        raise ValueError(word)

    plain = [kind for kind in kinds if kind is not NoneType]
    read.__name__ = "numbers" if get_origin(plain[0]) is tuple else plain[0].__name__
    return read
