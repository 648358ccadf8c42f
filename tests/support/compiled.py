"""Compiles tests once, before the workers of a test run collect them: else each of them compiles them all, on a fresh checkout.

pytest rewrites their assertions, which takes most of the time of a first collection.
"""

import compileall
import contextlib
import sys
from importlib.machinery import ModuleSpec
from importlib.util import module_from_spec
from pathlib import Path

SUPPORT = Path(__file__).parent


def compile_tests(config):
    """Leave compiled tests where workers look for them: of the files and folders that a test run was asked for."""
    if sys.dont_write_bytecode:
        return
    compileall.compile_dir(SUPPORT, quiet=2)
    for argument in config.args:
        place = Path(argument.partition("::")[0])
        for path in sorted(place.rglob("test_*.py")) if place.is_dir() else [place]:
            with contextlib.suppress(Exception):  # a test with an error is for a worker to report
                _compile(config.pluginmanager.rewrite_hook, path)


def _compile(loader, path):
    """Have pytest's importer compile a test and keep the result; what it then runs ends at its first import."""
    module = module_from_spec(ModuleSpec(f"compiled.{path.stem}", loader, origin=str(path.absolute())))
    module.__builtins__ = {}
    loader.exec_module(module)
