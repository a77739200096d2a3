"""Every error this project raises on purpose, sorted by who can fix it.

    SkipVisionError
    ├── ConfigError              the operator: a setting is wrong; nothing was started
    ├── InputError               the caller: this row or request is wrong; do not retry
    │   ├── ImageError               the image is missing, unreadable, hostile or too large
    │   ├── FetchError               the image's address is refused or does not answer
    │   ├── PromptError              the prompt is missing or not text
    │   ├── PromptTooLongError       the prompt does not fit the context window
    │   └── SampleError              the training sample cannot be learnt from
    ├── TrainingError            the operator: training cannot go on with these settings
    ├── CapacityError            nobody: the system is busy; retry after a pause
    │   └── QueueFullError           the engine's waiting line is full
    ├── EngineDeadError          the platform: the process must be replaced
    ├── StorageError             the platform: files cannot be written or read now; retry when they can
    └── JobStoppedError          the operator: the job cannot go on now; started again, it goes on

An `InputError` has a `code`: a short stable name that results, metrics and HTTP errors carry. Messages are for
the person who sent the input: they name the value and the remedy, never an address or a path of this program.
All of them survive pickling, since Ray and process pools move exceptions.
"""

from __future__ import annotations

from typing import Any


class SkipVisionError(Exception):
    """Anything this project raises on purpose."""


class ConfigError(SkipVisionError):
    """A setting is wrong or contradicts another; nothing was started."""


class InputError(SkipVisionError):
    """One row or request is wrong. Others are not affected, and retrying does not help."""

    default_code = "input_invalid"

    def __init__(self, message: str, *, code: str | None = None) -> None:
        self.code = code or self.default_code
        super().__init__(message)

    def __reduce__(self) -> tuple[Any, ...]:
        # Keyword-only constructors do not unpickle by themselves.
        return _rebuild_input_error, (type(self), str(self), self.code)


class ImageError(InputError):
    """The image is missing, unreadable, hostile or too large; `code` says which."""

    default_code = "image_corrupt"


class FetchError(InputError):
    """The image's address is refused or does not answer; `code` says which."""

    default_code = "fetch_failed"


class PromptError(InputError):
    """The prompt is missing or is not text."""

    default_code = "prompt_missing"


class PromptTooLongError(InputError):
    """The prompt, images included, is longer than the model's context window."""

    default_code = "prompt_too_long"

    def __init__(self, *, prompt_tokens: int, limit_tokens: int) -> None:
        self.prompt_tokens, self.limit_tokens = prompt_tokens, limit_tokens
        super().__init__(
            f"the prompt takes {prompt_tokens} tokens and the model accepts {limit_tokens}; "
            f"shorten it by {prompt_tokens - limit_tokens}, keep fewer visual tokens or ask for fewer output tokens"
        )

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild_prompt_too_long, (self.prompt_tokens, self.limit_tokens)


class SampleError(InputError):
    """The training sample cannot be learnt from; `code` says why."""

    default_code = "sample_invalid"


class TrainingError(SkipVisionError):
    """Training cannot go on; what it has saved stands."""


class CapacityError(SkipVisionError):
    """The system is busy; the same call may succeed after a pause."""


class QueueFullError(CapacityError):
    """The engine's waiting line is full."""


class EngineDeadError(SkipVisionError):
    """The engine cannot go on; its process must be replaced."""


class StorageError(SkipVisionError):
    """A file cannot be written or read now: a full disk, a store that does not answer."""


class JobStoppedError(SkipVisionError):
    """A job cannot go on now. What it committed stays; started again, it goes on from there."""


def _rebuild_input_error(kind: type[InputError], message: str, code: str) -> InputError:
    return kind(message, code=code)


def _rebuild_prompt_too_long(prompt_tokens: int, limit_tokens: int) -> PromptTooLongError:
    return PromptTooLongError(prompt_tokens=prompt_tokens, limit_tokens=limit_tokens)
