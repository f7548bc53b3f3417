"""Errors that speak to the user: the message says what is wrong and what to do.

The command line prints these without a traceback and exits with ``exit_code``;
library callers catch them by type.
"""

from __future__ import annotations


class UserError(Exception):
    """Base of every error whose cause lies outside the code."""

    exit_code = 2


class ConfigError(UserError):
    """A config key, value or combination that cannot work."""


class DataError(UserError):
    """Data that is missing, torn, undecodable or of the wrong shape."""


class CheckpointError(UserError):
    """A checkpoint that is missing, incomplete, or of another config."""


class ResourceError(UserError):
    """Too few CPUs, GPUs, workers, memory or disk for what was asked."""


class DivergenceError(UserError):
    """A value that is not finite, or a training regime that cannot recover."""

    exit_code = 3
