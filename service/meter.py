"""What the door publishes: requests by how they ended, and what answers took beside what all tokens would have."""

from __future__ import annotations

from service.config import ServiceConfig
from service.wire import Piece, Spent
from skipvision import metrics
from skipvision.metrics import Registry


def published(config: ServiceConfig) -> Registry:
    """An empty registry, which is read from the port that the settings name, if they do.

    Raises:
        ConfigError: the port is taken or may not be opened.
    """
    registry = Registry()
    if config.metrics_port is not None:
        registry.serve(config.metrics_port, config.metrics_host)
    return registry


class ServiceMeter:
    """Counts what passes one door. There is one, and it sees every answer whole, so that nothing is counted twice."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._running = 0

    def begin(self) -> None:
        """A request has come."""
        self._show_running(1)

    def end(self, status: int, seconds: float) -> None:
        """It has ended."""
        self._show_running(-1)
        self._registry.add(metrics.REQUESTS, 1, status=str(status))
        if status == 200:
            self._registry.observe(metrics.REQUEST_SECONDS, seconds)

    def finished(self, piece: Piece) -> None:
        """One of its answers has come to its end."""
        if piece.finish_reason is not None:
            self._registry.add(metrics.ANSWERS, 1, finish_reason=piece.finish_reason)

    def spend(self, spent: Spent) -> None:
        """It was answered. What was done for requests that were given up is not told, and not counted."""
        add = self._registry.add
        add(metrics.IMAGES, spent.images, outcome="ok")
        for fate in metrics.VISUAL_TOKENS.labels["fate"]:
            add(metrics.VISUAL_TOKENS, spent.by_fate[f"{fate}_tokens"], fate=fate)
        add(metrics.SUMMARY_TOKENS, spent.by_fate["summary_tokens"])
        add(metrics.TEXT_TOKENS, spent.text_tokens, direction="prompt")
        add(metrics.TEXT_TOKENS, spent.output_tokens, direction="generated")
        for phase in metrics.FLOPS.labels["phase"]:
            add(metrics.FLOPS, spent.flops[phase], phase=phase)
            add(metrics.BASELINE_FLOPS, spent.flops_all_tokens[phase], phase=phase)
        add(metrics.KV_BYTES, spent.kv_bytes)
        add(metrics.BASELINE_KV_BYTES, spent.kv_bytes_all_tokens)
        for metric, name in (
            (metrics.QUEUE_SECONDS, "queue"),
            (metrics.FIRST_TOKEN_SECONDS, "first_token"),
            (metrics.ROW_SECONDS, "total"),
        ):
            self._registry.observe(metric, spent.seconds[name])
        for stage in metrics.WORK_SECONDS.labels["stage"]:
            self._registry.observe(metrics.WORK_SECONDS, spent.seconds[stage], stage=stage)

    def _show_running(self, change: int) -> None:
        self._running += change
        self._registry.set(metrics.REQUESTS_RUNNING, self._running)
