"""The examples in docstrings are part of the specification."""

import doctest
import importlib
import pkgutil

import pytest

import sites

MODULES = sorted(module.name for module in pkgutil.walk_packages(sites.__path__, "sites."))


@pytest.mark.parametrize("name", MODULES)
def test_examples_hold(name: str) -> None:
    assert doctest.testmod(importlib.import_module(name)).failed == 0
