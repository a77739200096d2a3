"""What is compared: a model, a setting of skipping, and what of the picture is shown."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from skipvision.errors import ConfigError

Shown = Literal["picture", "blank", "nothing"]
"""`blank`: a white picture in its place. `nothing`: the question alone. Both say what is right by guessing."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Trial:
    """One row of the table."""

    model: str | None
    """Checkpoint folder or hub id. None: the model that ships."""
    skip: str
    """As `SkipConfig.parse` reads it, or `auto`: what the checkpoint carries."""
    shown: Shown = "picture"

    @classmethod
    def parse(cls, text: str, *, model: str | None) -> Trial:
        """Read `[MODEL=]SKIP[@blank|@nothing]`.

        Args:
            model: where the text names none.

        Raises:
            ConfigError: the text says something else about what is shown.
        """
        named, equals, setting = text.rpartition("=")
        skip, at, shown = setting.partition("@")
        if at and shown not in get_args(Shown):
            raise ConfigError(f"a trial shows 'picture', 'blank' or 'nothing' after its @; got {text!r}")
        # Checked just above; the type checker does not follow.
        return cls(model=named if equals else model, skip=skip, shown=shown if at else "picture")  # type: ignore[arg-type]

    @property
    def name(self) -> str:
        """As `parse` reads it."""
        model = "" if self.model is None else f"{self.model}="
        return f"{model}{self.skip}" + ("" if self.shown == "picture" else f"@{self.shown}")
