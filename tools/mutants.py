"""How one function is mutated.

A *mutant* is a function with one node of its syntax tree changed. A sign is
flipped. A summand or a factor is dropped or doubled. An operand is transposed.
An axis, an index, a slice, a power or a constant is shifted. A comparison is
turned. A dot is forgotten. A state is forgotten. The last mini-batch is left
out. The rows of an outcome are those of other tasks, or are lost.
"""

from __future__ import annotations

import ast
import copy
import inspect
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from types import CodeType, FunctionType
from typing import Any, NamedTuple

# Calls that only gather results: each argument of one is a result of its own.
RECORDS = {"AdamState", "Adjoint", "InnerProblem", "Outcome", "Regularized", "_RegularizedPoint"}
TURNED = {
    ast.Add: [ast.Sub],
    ast.Sub: [ast.Add],
    ast.Mult: [ast.Div],
    ast.Div: [ast.Mult],
    ast.FloorDiv: [ast.Mod],
    ast.Mod: [ast.FloorDiv],
    ast.Eq: [ast.NotEq],
    ast.NotEq: [ast.Eq],
    ast.Lt: [ast.Gt, ast.LtE],
    ast.Gt: [ast.Lt, ast.GtE],
    ast.LtE: [ast.GtE, ast.Lt],
    ast.GtE: [ast.LtE, ast.Gt],
    ast.Is: [ast.IsNot],
    ast.IsNot: [ast.Is],
    ast.In: [ast.NotIn],
    ast.NotIn: [ast.In],
}


class Mutant(NamedTuple):
    """A function with one node changed."""

    line: int
    before: str  # the first line of the statement as it is
    after: str
    code: CodeType


def mutants(function: FunctionType) -> Iterator[Mutant]:
    """Every mutant of ``function``, each once."""
    definition = definition_of(function)
    seen = {ast.unparse(definition)}
    names, optional = set(function.__code__.co_varnames), _optional(definition)
    for to_statement, to_node in _places(definition):
        statement = _at(definition, to_statement)
        for other in replacements(_at(definition, to_node), names, optional):
            changed = _with(definition, to_node, other)
            source = ast.unparse(changed)
            if source not in seen:
                seen.add(source)
                before, after = _first_line(statement), _first_line(_at(changed, to_statement))
                yield Mutant(statement.lineno, before, after, compiled(changed, function))


@contextmanager
def in_place(function: FunctionType, code: CodeType) -> Iterator[None]:
    """``function`` runs ``code``, wherever ``function`` was imported to.

    A cache of its results is emptied before and after.
    """
    original = function.__code__
    cached = getattr(sys.modules[function.__module__], function.__name__, None)
    forget = getattr(cached, "cache_clear", lambda: None)
    function.__code__ = code
    forget()
    try:
        yield
    finally:
        function.__code__ = original
        forget()


# The nodes that are put in the place of one node.


def replacements(node: ast.AST, names: set[str], optional: set[str]) -> Iterator[ast.AST]:
    """The nodes put in the place of ``node``, each an error of its own.

    ``names`` are those of the function's variables, and ``optional`` those of
    its arguments that may be None.
    """
    match node:
        case ast.stmt():
            yield from _of_statement(node)
        case ast.BinOp(left, op, right):
            yield from _of_operation(left, op, right)
        case ast.UnaryOp(ast.USub() | ast.Invert(), operand):
            yield operand
        case ast.Compare(left, [op], [right]):
            yield from (ast.Compare(left, [other], [right]) for other in _turned(op))
        case ast.Constant(bool(value)):
            yield ast.Constant(not value)
        case ast.Constant(int() | float() as value):
            yield ast.Constant(value + 1)
            yield _number(value - 1)
        case ast.IfExp(_, body, orelse):
            yield body
            yield orelse
        case ast.Slice(lower, upper, step) if lower or upper or step:
            parts = {"lower": lower, "upper": upper, "step": step}
            yield from (ast.Slice(**(parts | {name: None})) for name in parts if parts[name])
        case ast.Subscript(value, index, context):
            yield from (ast.Subscript(value, other, context) for other in _shifted(index))
        case ast.Call(function, arguments):
            yield from _of_call(function, arguments, node)
        case ast.Dict(keys, values):
            yield from (ast.Dict(keys, others) for others in _one_scaled(values))
        case ast.Name(name, ast.Load()):
            other = name.removesuffix("_dot") if name.endswith("_dot") else f"{name}_dot"
            if other in names:
                yield ast.Name(other, ast.Load())
            if name in optional:
                yield ast.Constant(None)
            if name == "minibatches":
                yield _all_but_the_last(node)
        case ast.Attribute(_, "minibatches", ast.Load()):
            yield _all_but_the_last(node)


def _of_statement(statement: ast.stmt) -> Iterator[ast.stmt]:
    """A statement left out, a branch always or never taken, a result scaled."""
    match statement:
        case ast.Expr() | ast.Assign([ast.Subscript()]):
            yield ast.Pass()
        case ast.AugAssign(target, op, value):
            yield ast.Pass()
            yield from (ast.AugAssign(target, other, value) for other in _turned(op))
            yield ast.AugAssign(target, op, _doubled(value))
        case ast.If(_, body, orelse):
            yield ast.If(ast.Constant(True), body, orelse)
            yield ast.If(ast.Constant(False), body, orelse)
        case ast.Return(value):
            yield from (ast.Return(other) for other in _results(value))


def _of_operation(left: ast.expr, op: ast.operator, right: ast.expr) -> Iterator[ast.expr]:
    """A sum or product: turned; a side of it dropped, doubled or transposed."""
    whole = ast.BinOp(left, op, right)
    yield from (ast.BinOp(left, other, right) for other in _turned(op))
    yield left
    match op:
        case ast.Add() | ast.Pow() | ast.BitAnd() | ast.BitOr():
            yield right
        case ast.Sub():
            yield ast.UnaryOp(ast.USub(), right)
        case ast.Mult():
            yield right
            yield _doubled(whole)
        case ast.Div():
            yield ast.BinOp(ast.Constant(1), op, right)
            yield _doubled(whole)
        case ast.MatMult():
            yield right
            yield _doubled(whole)
            yield ast.BinOp(_transposed(left), op, right)
            yield ast.BinOp(left, op, _transposed(right))


def _of_call(function: ast.expr, arguments: list[ast.expr], node: ast.Call) -> Iterator[ast.expr]:
    """sum for mean; a choice made once for all; a swap of axes, a reversal or
    an elementary function left out."""
    match function:
        case ast.Attribute(value, ("sum" | "mean") as name, context):
            other = "mean" if name == "sum" else "sum"
            yield ast.Call(ast.Attribute(value, other, context), arguments, node.keywords)
        case ast.Attribute(value, "swapaxes" | "reshape"):
            yield value
        case ast.Attribute(_, "where"):
            yield from arguments[1:]
        case ast.Name("range"):
            for i in range(min(1, len(arguments) - 1), len(arguments)):
                fewer = ast.BinOp(arguments[i], ast.Sub(), ast.Constant(1))
                yield ast.Call(function, [*arguments[:i], fewer, *arguments[i + 1 :]], [])
        case ast.Name("reversed" | "product") | ast.Attribute(_, "exp" | "sqrt" | "sign"):
            yield arguments[0]


def _turned(op: ast.AST) -> list[ast.AST]:
    """The operators that ``op`` could be mistaken for."""
    return [other() for other in TURNED.get(type(op), [])]


def _results(value: ast.expr | None) -> Iterator[ast.expr]:
    """A returned value with another sign or size; one element of a tuple or a
    record alone."""
    match value:
        case ast.Tuple(elements, context):
            yield from (ast.Tuple(others, context) for others in _one_scaled(elements))
        case ast.Call(ast.Name(name) as record, arguments, []) if name in RECORDS:
            yield from (ast.Call(record, others, []) for others in _one_scaled(arguments))
            if name == "Outcome":
                yield from (ast.Call(record, others, []) for others in _one_misplaced(arguments))
        case ast.expr():
            yield from _scaled(value)


def _one_scaled(values: list[ast.expr]) -> Iterator[list[ast.expr]]:
    for i, value in enumerate(values):
        yield from ([*values[:i], other, *values[i + 1 :]] for other in _scaled(value))


def _one_misplaced(values: list[ast.expr]) -> Iterator[list[ast.expr]]:
    """One value lost, or with its rows in another order."""
    for i, value in enumerate(values):
        turned = ast.parse(f"({ast.unparse(value)})[::-1]", mode="eval").body
        for other in (ast.Constant(None), turned):
            yield [*values[:i], other, *values[i + 1 :]]


def _scaled(value: ast.expr) -> Iterator[ast.expr]:
    if not isinstance(value, (ast.Constant, ast.Dict, ast.Starred, ast.Tuple)):
        yield ast.UnaryOp(ast.USub(), value)
        yield _doubled(value)


def _shifted(index: ast.expr) -> Iterator[ast.expr]:
    """An index that is a variable, one off; alone or among others."""
    match index:
        case ast.Name():
            yield ast.BinOp(index, ast.Sub(), ast.Constant(1))
        case ast.Tuple(elements, context):
            for i, element in enumerate(elements):
                for other in _shifted(element):
                    yield ast.Tuple([*elements[:i], other, *elements[i + 1 :]], context)


def _doubled(value: ast.expr) -> ast.expr:
    """2.0 times, since 2 times a list only makes it longer."""
    return ast.BinOp(ast.Constant(2.0), ast.Mult(), value)


def _transposed(matrix: ast.expr) -> ast.expr:
    return ast.parse(f"({ast.unparse(matrix)}).swapaxes(-1, -2)", mode="eval").body


def _all_but_the_last(sequence: ast.expr) -> ast.expr:
    return ast.parse(f"({ast.unparse(sequence)})[:-1]", mode="eval").body


def _optional(definition: ast.FunctionDef) -> set[str]:
    """The names of the arguments whose default is None."""
    given, defaults = definition.args.args, definition.args.defaults
    with_default = zip(given[len(given) - len(defaults) :], defaults, strict=True)
    return {
        argument.arg
        for argument, default in with_default
        if isinstance(default, ast.Constant) and default.value is None
    }


def _number(value: float) -> ast.expr:
    return ast.Constant(value) if value >= 0 else ast.UnaryOp(ast.USub(), ast.Constant(-value))


# The tree of a function, and back to its code.


def definition_of(function: FunctionType) -> ast.FunctionDef:
    """The syntax tree of ``function``, without its decorators."""
    lines, first = inspect.getsourcelines(function)
    tree = ast.parse(textwrap.dedent("".join(lines)))
    ast.increment_lineno(tree, first - 1)
    definition = tree.body[0]
    definition.decorator_list = []
    return definition


def compiled(definition: ast.FunctionDef, function: FunctionType) -> CodeType:
    """The code of ``definition``, to take the place of that of ``function``.

    It is compiled as the library is, with annotations left alone. It stands
    among the free variables that ``function`` has, those of ``super``.
    """
    original = function.__code__
    around = ast.parse(f"def around({', '.join(original.co_freevars)}): pass").body[0]
    # Under its own name, a function that calls another of that name would
    # call itself.
    within = copy.copy(definition)
    within.name = "mutant"
    around.body = [within]
    flags = original.co_flags & 0xFFF0000  # the module's future imports
    module = ast.fix_missing_locations(ast.Module([around], []))
    code = compile(module, original.co_filename, "exec", flags, dont_inherit=True)
    for name in ("around", within.name):
        inner = (each for each in code.co_consts if isinstance(each, CodeType))
        code = next(each for each in inner if each.co_name == name)
    return code


# The fields and indices from a function's definition down to a node.
Way = tuple[tuple[str, int | None], ...]


def _places(definition: ast.FunctionDef) -> Iterator[tuple[Way, Way]]:
    """The way to the statement of each node of a function's body, and the way
    to the node. Left out are the docstring, annotations, refusals, and the
    choice and the call of a twin, which the plain definition does not make."""

    def below(node: ast.AST, way: Way, statement: Way) -> Iterator[tuple[Way, Way]]:
        if _is_a_refusal(node) or _is_of_a_twin(node) or (chooses and _is_fit(node)):
            return
        statement = way if isinstance(node, ast.stmt) else statement
        yield statement, way
        for name, value in ast.iter_fields(node):
            parts = enumerate(value) if isinstance(value, list) else [(None, value)]
            for i, part in parts:
                # In a reshape -1 stands for the rest.
                inferred = isinstance(part, ast.UnaryOp) and _is_reshape(node)
                if isinstance(part, ast.AST) and name != "annotation" and not inferred:
                    yield from below(part, (*way, (name, i)), statement)

    chooses = any(map(_is_of_a_twin, definition.body))
    documented = ast.get_docstring(definition) is not None
    for i in range(documented, len(definition.body)):
        yield from below(definition.body[i], (("body", i),), ())


def _is_a_refusal(node: ast.AST) -> bool:
    match node:
        case ast.Raise() | ast.Expr(
            ast.Call(ast.Name("_expect" | "_expect_channels" | "_expect_parameters"))
        ):
            return True
    return False


def _is_of_a_twin(node: ast.AST) -> bool:
    """Whether it is an ``if`` on a device, or on a twin that takes the
    arrays."""
    match node:
        case ast.If(ast.Call(ast.Name("compiles_kernels"))):
            return True
        case ast.If(ast.NamedExpr(ast.Name("twin"))):
            return True
        case ast.If(ast.BoolOp(ast.And(), [*_, ast.NamedExpr(ast.Name("twin"))])):
            return True
    return False


def _is_fit(node: ast.AST) -> bool:
    """Whether it says whether arrays fit a twin."""
    match node:
        case ast.Assign([ast.Name("fit")]):
            return True
    return False


def _is_reshape(node: ast.AST) -> bool:
    match node:
        case ast.Call(ast.Attribute(_, "reshape")):
            return True
    return False


def _at(node: ast.AST, way: Way) -> Any:
    for name, i in way:
        node = getattr(node, name) if i is None else getattr(node, name)[i]
    return node


def _with(definition: ast.FunctionDef, way: Way, other: ast.AST) -> ast.FunctionDef:
    """A copy of ``definition`` with ``other`` at the end of ``way``."""
    changed = copy.deepcopy(definition)
    parent, (name, i) = _at(changed, way[:-1]), way[-1]
    if i is None:
        setattr(parent, name, copy.deepcopy(other))
    else:
        getattr(parent, name)[i] = copy.deepcopy(other)
    return changed


def _first_line(statement: ast.stmt) -> str:
    return ast.unparse(statement).splitlines()[0]
