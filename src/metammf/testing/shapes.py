"""Check the shapes written in signatures while tests run; costs a program outside tests nothing, not even an import.

No type checker sees through ``module(...)``: the annotations of jaxtyping are the real net, and this draws it tight.
"""

from __future__ import annotations

import ast
import inspect
from importlib import import_module
from pkgutil import iter_modules
from types import FunctionType
from typing import TYPE_CHECKING, Any

from metammf.errors import MissingExtraError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import ModuleType

_SHAPED = ("Float[", "Int[", "Bool[")


def modules_of(package: ModuleType) -> list[ModuleType]:
    """Return the modules of a package, imported."""
    return [import_module(f"{package.__name__}.{found.name}") for found in iter_modules(package.__path__)]


def check_shapes(*modules: ModuleType) -> list[str]:
    """Make the functions and methods of these modules check their arguments and results against their annotations.

    jaxtyping's import hook wants its names at run time, and the modules here import them for type checkers alone. So
    the modules are imported as they are, and their functions wrapped afterwards, with the names that the type checker
    would see. A function imported from one of them by name before this call stays unchecked where it was imported.

    Returns:
        The qualified names of what is checked from now on, what was checked already included.

    Raises:
        MissingExtraError: jaxtyping or beartype is not installed.
    """
    try:
        from beartype import beartype
        from jaxtyping import jaxtyped
    except ImportError as error:
        raise MissingExtraError("jaxtyping and beartype", "test", "checking shapes") from error
    checked = []
    for module in modules:
        names = vars(module) | _names_for_type_checkers(module)
        for owner, name, function in _functions(module):
            checked.append(f"{module.__name__}.{function.__qualname__}")
            if not hasattr(function, "__wrapped__"):
                # Shapes alone are checked here; the rest is the type checker's.
                function.__annotations__ = {
                    key: eval(hint, names)  # noqa: S307 - annotations of our own source
                    for key, hint in function.__annotations__.items()
                    if _is_shaped(hint)
                }
                setattr(owner, name, jaxtyped(typechecker=beartype)(function))
    return checked


def _is_shaped(hint: Any) -> bool:
    return isinstance(hint, str) and any(kind in hint for kind in _SHAPED)


def _functions(module: ModuleType) -> Iterator[tuple[Any, str, FunctionType]]:
    owners = [module, *(value for value in vars(module).values() if isinstance(value, type))]
    for owner in owners:
        for name, value in list(vars(owner).items()):
            here = isinstance(value, FunctionType) and value.__module__ == module.__name__
            if here and (hasattr(value, "__wrapped__") or any(map(_is_shaped, value.__annotations__.values()))):
                yield owner, name, value


def _names_for_type_checkers(module: ModuleType) -> dict[str, Any]:
    """Import what stands under ``if TYPE_CHECKING:``."""
    names = dict(vars(module))
    for node in ast.parse(inspect.getsource(module)).body:
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            imports = ast.Module(body=node.body, type_ignores=[])
            exec(compile(imports, module.__name__, "exec"), names)  # noqa: S102 - imports of our own source
    return names
