"""A door's side of a question: sent to a replica, asked once more if that one is lost, given up with whoever asked."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace
from typing import Any

from ray.exceptions import RayActorError, WorkerCrashedError
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError, ReplicaUnavailableError
from ray.serve.handle import DeploymentHandle

from service.errors import overloaded
from service.wire import Event, Failed, Question
from skipvision.errors import EngineDeadError

LOST = (RayActorError, WorkerCrashedError, ReplicaUnavailableError)
"""What Ray raises when the process that answered is gone, or cannot be reached."""

_TRIES = 2


async def events_of(
    replicas: DeploymentHandle[Any], question: Question, *, streamed: bool
) -> AsyncGenerator[list[Event], None]:
    """What is said to a question, as it comes where it is `streamed`, and else all at once.

    Raises:
        InputError, CapacityError: as the engine says.
        ApiError: nobody has room for it.
        EngineDeadError: the replica was lost after it had begun to speak, or a second one was.
    """
    for attempt in range(1, _TRIES + 1):
        # A replica that could not be reached may be answering still; it must not meet the same request again.
        again = replace(question, request_id=f"{question.request_id}-{attempt}")
        has_spoken = False
        try:
            async with aclosing(_told(replicas, again, streamed)) as told:
                async for events in told:
                    for event in events:
                        if isinstance(event, Failed):
                            raise event.error
                    has_spoken = True
                    yield events
            return
        except (BackPressureError, DeploymentUnavailableError) as error:
            raise overloaded() from error
        except LOST as error:
            if has_spoken or attempt == _TRIES:
                raise EngineDeadError("the replica that answered was lost") from error


async def _told(
    replicas: DeploymentHandle[Any], question: Question, streamed: bool
) -> AsyncGenerator[list[Event], None]:
    response: Any = (replicas.options(stream=True).stream if streamed else replicas.answer).remote(question)
    finished = False
    try:
        if streamed:
            async for events in response:
                yield events
        else:
            yield await response
        finished = True
    finally:
        if not finished:
            response.cancel()
