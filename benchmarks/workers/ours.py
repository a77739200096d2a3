"""This project's engine as a worker."""

from __future__ import annotations

from pathlib import Path
from time import perf_counter
from typing import Any

import torch

from benchmarks.limits import work_of
from benchmarks.machine import versions_of
from benchmarks.work import CHECKPOINT, Work
from benchmarks.workers.rss import peak_rss_bytes, reset_peak_rss, rss_bytes
from benchmarks.workers.serve import serve
from skipvision.engine import Answer, Engine, Request, Sampling
from skipvision.engine.pages import PAGE_TOKENS
from skipvision.families import load_family
from skipvision.families.llava import LlavaFamily
from skipvision.method.plan import SkipConfig


class Ours:
    """One engine at a time, over one checkpoint."""

    def load(self, *, folder: str, dtype: str, max_running: int = 32) -> dict[str, Any]:
        """Load the checkpoint in `folder`."""
        family = load_family(Path(folder) / CHECKPOINT, device="cpu", dtype=dtype)
        assert isinstance(family, LlavaFamily), "the checkpoint is one of random_llava's"
        self.family = family
        self.engine = Engine(self.family, max_running=max_running, vision_cache_bytes=0)
        return {"threads": torch.get_num_threads(), "versions": versions_of("torch", "transformers")}

    def limit(self, *, max_running: int) -> None:
        """Go on with an engine that has another limit."""
        self.engine.close()
        self.engine = Engine(self.family, max_running=max_running, vision_cache_bytes=0)

    def answer_all(self, *, work: dict[str, Any], skip: str) -> dict[str, Any]:
        """Answer everything at once, from decoded images to tokens."""
        pictures = Work(**work).pictures()
        before, started = dict(self.engine.stats().stage_seconds), perf_counter()
        requests = self._requests(Work(**work), skip, pictures)
        prepared = perf_counter()
        answers = self.engine.answer(requests)
        ended = perf_counter()
        after = self.engine.stats().stage_seconds
        return {
            "seconds": ended - started,
            "stage_seconds": {"preprocess": prepared - started, **{name: after[name] - before[name] for name in after}},
            "output_ids": [answer.output_ids for answer in answers],
            **self._counts(answers),
        }

    def answer_one(self, *, work: dict[str, Any], skip: str, index: int) -> dict[str, float]:
        """Answer one request alone: seconds to the first token and to the last."""
        pictures = Work(**work).pictures()[index : index + 1]
        started = perf_counter()
        requests = self._requests(Work(**work), skip, pictures)
        prepared_seconds = perf_counter() - started
        (answer,) = self.engine.answer(requests)
        return {
            "first_token_seconds": prepared_seconds + answer.first_token_seconds,
            "seconds": prepared_seconds + answer.seconds,
        }

    def answer_weighed(self, *, work: dict[str, Any], skip: str) -> dict[str, float]:
        """Answer everything at once: bytes that the process grew by, and tokens that the cache held, at their most."""
        requests = self._requests(Work(**work), skip, Work(**work).pictures())
        reset_peak_rss()
        before = rss_bytes()
        for request in requests:
            self.engine.add(request)
        held_tokens, answers = 0, []
        while self.engine.has_work:
            answers += [delta.answer for delta in self.engine.step() if delta.answer is not None]
            stats = self.engine.stats()
            held_tokens = max(held_tokens, (stats.num_pages - stats.free_pages) * PAGE_TOKENS)
        return {"grown_bytes": peak_rss_bytes() - before, "held_tokens": held_tokens, **self._counts(answers)}

    def _requests(self, work: Work, skip: str, pictures: list[list[Any]]) -> list[Request]:
        sampling = Sampling(max_tokens=work.new_tokens, ignore_eos=True)
        return [
            Request(
                prompt=work.prompt,
                images=tuple(self.engine.prepare(image) for image in images),
                sampling=sampling,
                skip=SkipConfig.parse(skip),
                request_id=str(index),
            )
            for index, images in enumerate(pictures)
        ]

    def _counts(self, answers: list[Answer]) -> dict[str, Any]:
        """What the answers' plans say; all requests have prompts of one length."""
        plan = answers[0].plan
        return {
            "prompt_tokens": plan.prompt_tokens,
            "cached_tokens": plan.cached_tokens,
            "work": work_of(self.family, plan, output_tokens=len(answers[0].output_ids)),
        }


if __name__ == "__main__":
    serve(Ours())
