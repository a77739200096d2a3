"""Datasets in, answers out: the batch job and what is read from its folder; and Ray Data LLM's way to ask."""

from typing import Any

__all__ = ["ProcessorConfig", "build_processor"]


def __getattr__(name: str) -> Any:
    """What needs Ray Data and an engine is imported when it is asked for: preparing tasks import neither."""
    if name in __all__:
        from pipelines import processor

        return getattr(processor, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
