"""llguidance, which only those need who ask for structured output, and how much work it may do for one grammar."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from skipvision.errors import ConfigError


def load_llguidance() -> Any:
    """The module `llguidance`.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        return import_module("llguidance")
    except ImportError as error:
        raise ConfigError(
            "structured output needs llguidance, which is not installed here: pip install 'skipvision[serve]'"
        ) from error


def work_limits(llguidance: Any) -> Any:
    """What one grammar may cost: some tens of milliseconds to begin with and for the worst of its tokens.

    Its own defaults let a single schema take half a gigabyte for the states of its patterns: 1 to 2 kB each.
    """
    return llguidance.LLParserLimits(
        initial_lexer_fuel=200_000,
        step_lexer_fuel=100_000,
        max_lexer_states=20_000,
        max_grammar_size=100_000,
        verbose_errors=False,  # the verbose ones carry the parser's state, which is nothing for a caller
    )
