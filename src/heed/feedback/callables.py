"""Find a callable by its name: `package.module:function` or `path/to/file.py:function`."""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from heed.errors import ConfigError
from heed.ids import content_hash


def load_callable(name: str) -> Callable[..., Any]:
    """Import and return the callable that `name` points at.

    Args:
        name: `module:function` (importable from here or installed) or `path/file.py:function`;
            a dotted attribute such as `module:Class.method` works too.

    Raises:
        ConfigError: the form is wrong, the module or attribute is not there, importing it raised,
            or it cannot be called.
    """
    where, colon, attribute = name.rpartition(":")
    if not colon or not where or not attribute:
        raise ConfigError(f"found {name!r}, expected 'module:function' or 'path/file.py:function'")
    module = _load_file(Path(where)) if where.endswith(".py") else _load_module(where)
    found: Any = module
    for part in attribute.split("."):
        if not hasattr(found, part):
            near = difflib.get_close_matches(part, dir(found), n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise ConfigError(f"{where} has no {attribute!r}{hint}")
        found = getattr(found, part)
    if not callable(found):
        raise ConfigError(f"{name} is {type(found).__name__}, expected something to call")
    return found


def _load_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise ConfigError(f"there is no file {path}; give the path of an existing .py file")
    # The name holds the whole path, so that two files of one name do not meet.
    module_name = f"heed_user_{path.stem}_{content_hash(str(path.resolve()))}"
    spec = importlib.util.spec_from_file_location(module_name, path)
    if spec is None or spec.loader is None:
        raise ConfigError(f"{path} cannot be imported as a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[module_name]
        raise ConfigError(f"importing {path} raised {type(error).__name__}: {error}") from error
    return module


def _load_module(name: str) -> ModuleType:
    here = str(Path.cwd())
    sys.path.insert(0, here)  # a console script does not look in the current folder by itself
    try:
        return importlib.import_module(name)
    except Exception as error:
        raise ConfigError(
            f"importing the module {name!r} raised {type(error).__name__}: {error}; "
            "it must be installed or lie in the current folder"
        ) from error
    finally:
        sys.path.remove(here)
