"""Answer questions about images with a vision-language model, paying for fewer visual tokens.

The names below are all a notebook needs. Each is loaded when it is first used, so that importing this package
costs nothing and loads neither torch nor Ray.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from skipvision.version import __version__

if TYPE_CHECKING:
    from skipvision.engine import Engine, Request, Sampling
    from skipvision.families.patch import skipping
    from skipvision.method.plan import SkipConfig

__all__ = ["Engine", "Request", "Sampling", "SkipConfig", "__version__", "skipping"]

_HOMES = {
    "Engine": "skipvision.engine",
    "Request": "skipvision.engine",
    "Sampling": "skipvision.engine",
    "SkipConfig": "skipvision.method.plan",
    "skipping": "skipvision.families.patch",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
