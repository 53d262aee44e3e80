"""The hand-written stub of the compiled module says what the module has."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from types import WrapperDescriptorType
from typing import Any

import pyconv
from pyconv import _core

STUB = ast.parse(Path(pyconv.__file__).with_name("_core.pyi").read_text())


def stubbed(body: list[ast.stmt], owner: str = "") -> dict[str, list[str] | None]:
    """Qualified names in the stub: parameters of functions, None for attributes."""
    names: dict[str, list[str] | None] = {}
    for item in body:
        if isinstance(item, ast.ClassDef):
            names[item.name] = None
            names |= stubbed(item.body, f"{item.name}.")
        elif isinstance(item, ast.FunctionDef):
            arguments = item.args
            listed = [a.arg for a in (*arguments.posonlyargs, *arguments.args)]
            names[owner + item.name] = (
                None if item.decorator_list else listed + [a.arg for a in arguments.kwonlyargs]
            )
        elif isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name):
            names[owner + item.target.id] = None
    return names


def compiled(scope: Any, owner: str = "") -> dict[str, list[str] | None]:
    """Qualified names in the module, with parameters as pybind11's docstrings list them."""
    names: dict[str, list[str] | None] = {}
    for name, value in vars(scope).items():
        if name.startswith("_") and name != "__init__":
            continue
        if isinstance(value, WrapperDescriptorType):
            continue  # object's __init__, of a class that Python cannot construct
        if isinstance(value, type):
            names[name] = None
            names |= compiled(value, f"{name}.")
        elif callable(value):
            signature = (value.__doc__ or "").splitlines()[0]
            names[owner + name] = re.findall(r"\b(\w+)(?=: )", signature)
        else:
            names[owner + name] = None
    return names


def test_stub_and_module_agree() -> None:
    assert stubbed(STUB.body) == compiled(_core)
