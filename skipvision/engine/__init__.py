"""The engine: requests in, answers out, many at once, over one loaded checkpoint.

`engine` is the door and reads like prose; `request` is what goes through it. Behind it: `scheduler` (who is read, who
waits), `kv_cache` (pages), `visual` and `vision_cache` (images), `model_runner` (one packed forward pass), `attention`,
`adapter_rows`, `logits_hook`, `sampling`, `logprobs`, `text` and `stats`.
"""

from skipvision.engine.engine import Engine
from skipvision.engine.logits_hook import ForkableHook, LogitsHook
from skipvision.engine.logprobs import TokenLogprobs
from skipvision.engine.request import Answer, Delta, FinishReason, Request, Sampling
from skipvision.engine.sampling import answer_seed
from skipvision.engine.stats import EngineCounts, EngineStats

__all__ = [
    "Answer",
    "Delta",
    "Engine",
    "EngineCounts",
    "EngineStats",
    "FinishReason",
    "ForkableHook",
    "LogitsHook",
    "Request",
    "Sampling",
    "TokenLogprobs",
    "answer_seed",
]
