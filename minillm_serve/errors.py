"""The error of every configuration, apart from them so that each may raise it."""

from __future__ import annotations


class ConfigError(ValueError):
    """A configuration or model folder that cannot work; says what was expected and what to do."""
