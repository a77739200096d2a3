"""What an engine did, entered in the catalogue's metrics: the same for a job's engines and a service's."""

from __future__ import annotations

from skipvision import metrics
from skipvision.engine.driver import EngineWork
from skipvision.metrics import Recorder


def record_work(work: EngineWork, to: Recorder) -> None:
    """Count what engines did in some time."""
    counts = work.counts
    for stage, seconds in work.stage_seconds.items():
        to.add(metrics.STAGE_SECONDS, seconds, stage=stage)
    to.add(metrics.ENGINE_STEPS, counts.steps)
    to.add(metrics.BATCH_SLOTS, counts.slots_used, state="used")
    to.add(metrics.BATCH_SLOTS, counts.slots - counts.slots_used, state="empty")
    to.add(metrics.CACHE_PAGES, counts.pages_held, state="held")
    to.add(metrics.CACHE_PAGES, counts.pages - counts.pages_held, state="free")
    to.add(metrics.PREEMPTIONS, counts.preemptions)
    to.add(metrics.SHARED_PROMPT_TOKENS, counts.shared_prompt_tokens)
    to.add(metrics.VISION_CACHE_LOOKUPS, counts.vision_cache_hits, result="hit")
    to.add(metrics.VISION_CACHE_LOOKUPS, counts.vision_cache_misses, result="miss")
