"""What the door publishes: requests by how they ended, and what answers took beside what all tokens would have."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from service.models import Offer
from service.wire import Piece, Spent
from skipvision import metrics
from skipvision.metrics import Recorder, Registry, error_stage

NO_MODEL = "none"
"""What a request's model is called where it named none that is offered."""
OWN_SKIP = "request"
"""What the setting is called of requests that bring their own."""


def work_labels(model: str, skip: str, *, own_skip: bool = False) -> dict[str, str]:
    """Of what is done for a model's requests."""
    return {"workload": "online", "model": model, "skip": OWN_SKIP if own_skip else skip}


class ServiceMeter:
    """Counts what passes one door. There is one, and it sees every answer whole, so that nothing is counted twice."""

    def __init__(self, registry: Registry, offered: Mapping[str, Offer], tenants: Iterable[str]) -> None:
        self._registry, self._running = registry, 0
        self._models = {
            name: registry.within(workload="online", model=name) for name in (*offered, NO_MODEL)
        }  # fmt: skip
        self._tenants = {name: registry.within(tenant=name) for name in tenants}
        self._work = {
            (name, own): registry.within(**work_labels(name, offer.skip, own_skip=own))
            for name, offer in offered.items() for own in (False, True)
        }  # fmt: skip

    def begin(self) -> None:
        """A request has come."""
        self._show_running(1)

    def end(self, status: int, seconds: float, *, model: str | None, tenant: str, code: str | None) -> None:
        """It has ended."""
        self._show_running(-1)
        of_model = self._models[model or NO_MODEL]
        of_model.add(metrics.REQUESTS, 1, status=str(status))
        self._tenants[tenant].add(metrics.TENANT_REQUESTS, 1, outcome=_outcome(status))
        if status == 200:
            of_model.observe(metrics.REQUEST_SECONDS, seconds)
        elif status != 499:
            code = code or "unexpected"
            of_model.add(metrics.ERRORS, 1, stage=error_stage(code), code=code)

    def finished(self, piece: Piece, *, model: str, own_skip: bool) -> None:
        """One of its answers has come to its end."""
        if piece.finish_reason is not None:
            self._work[model, own_skip].add(metrics.ANSWERS, 1, finish_reason=piece.finish_reason)

    def spend_time(self, seconds: float, *, stage: str, model: str) -> None:
        """Some work was done for a request, before its model was asked."""
        self._work[model, False].add(metrics.STAGE_SECONDS, seconds, stage=stage)

    def spend(self, spent: Spent, *, model: str, own_skip: bool, tenant: str) -> None:
        """It was answered. What was done for requests that were given up is not told, and not counted."""
        to = self._work[model, own_skip]
        to.add(metrics.IMAGES, spent.images, outcome="ok")
        for fate in metrics.VISUAL_TOKENS.labels["fate"]:
            to.add(metrics.VISUAL_TOKENS, spent.by_fate[f"{fate}_tokens"], fate=fate)
        to.add(metrics.SUMMARY_TOKENS, spent.by_fate["summary_tokens"])
        to.add(metrics.TEXT_TOKENS, spent.text_tokens, direction="prompt")
        to.add(metrics.TEXT_TOKENS, spent.output_tokens, direction="generated")
        for phase in metrics.FLOPS.labels["phase"]:
            to.add(metrics.FLOPS, spent.flops[phase], phase=phase, basis="modelled")
            to.add(metrics.BASELINE_FLOPS, spent.flops_all_tokens[phase], phase=phase, basis="modelled")
        to.add(metrics.KV_BYTES, spent.kv_bytes, basis="modelled")
        to.add(metrics.BASELINE_KV_BYTES, spent.kv_bytes_all_tokens, basis="modelled")
        _observe_seconds(to, spent.seconds)
        of_tenant = self._tenants[tenant]
        of_tenant.add(metrics.TENANT_TOKENS, spent.prompt_tokens, direction="prompt")
        of_tenant.add(metrics.TENANT_TOKENS, spent.output_tokens, direction="generated")
        work = sum(spent.seconds[stage] for stage in metrics.WORK_SECONDS.labels["stage"])
        of_tenant.add(metrics.TENANT_WORK_SECONDS, work)

    def _show_running(self, change: int) -> None:
        self._running += change
        self._registry.set(metrics.REQUESTS_RUNNING, self._running)


def _observe_seconds(to: Recorder, seconds: Mapping[str, float]) -> None:
    for metric, name in (
        (metrics.QUEUE_SECONDS, "queue"),
        (metrics.FIRST_TOKEN_SECONDS, "first_token"),
        (metrics.ROW_SECONDS, "total"),
    ):
        to.observe(metric, seconds[name])
    for stage in metrics.WORK_SECONDS.labels["stage"]:
        to.observe(metrics.WORK_SECONDS, seconds[stage], stage=stage)


def _outcome(status: int) -> str:
    """What a tenant's request came to."""
    match status:
        case 200:
            return "ok"
        case 429:
            return "limited"
        case 499:
            return "left"
        case _:
            return "failed" if status >= 500 else "refused"
