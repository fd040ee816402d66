"""Let tools that still ask for setup.py build the package; everything it needs is in pyproject.toml."""

from setuptools import setup

setup()
