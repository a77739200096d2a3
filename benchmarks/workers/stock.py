"""transformers' `generate` as a worker, with what it recommends: SDPA, a cache, equal prompts in one batch."""

from __future__ import annotations

from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch
from transformers import AutoProcessor, LlavaForConditionalGeneration

from benchmarks.machine import versions_of
from benchmarks.work import CHECKPOINT, Work
from benchmarks.workers.serve import serve


class FirstToken:
    """A streamer that notes when the first token came."""

    def __init__(self) -> None:
        self.at: float | None = None
        self._prompt_seen = False

    def put(self, _: torch.Tensor) -> None:
        """Take the prompt, and after it token by token."""
        if self._prompt_seen and self.at is None:
            self.at = perf_counter()
        self._prompt_seen = True

    def end(self) -> None:
        """Nothing more comes."""


class Stock:
    """The stock model."""

    def load(self, *, folder: str, dtype: str) -> dict[str, Any]:
        """Load the checkpoint in `folder`."""
        checkpoint = Path(folder) / CHECKPOINT
        self.model = LlavaForConditionalGeneration.from_pretrained(checkpoint, dtype=dtype).eval()
        self.processor = AutoProcessor.from_pretrained(checkpoint)
        return {"threads": torch.get_num_threads(), "versions": versions_of("torch", "transformers")}

    def answer_all(self, *, work: dict[str, Any], batch: int) -> dict[str, Any]:
        """Answer everything, `batch` requests at a time, from decoded images to tokens."""
        todo = Work(**work)
        pictures = todo.pictures()
        started = perf_counter()
        outputs = []
        for at in range(0, todo.requests, batch):
            outputs += self._generate(todo, pictures[at : at + batch])
        return {"seconds": perf_counter() - started, "output_ids": outputs}

    def answer_one(self, *, work: dict[str, Any], index: int) -> dict[str, float]:
        """Answer one request alone: seconds to the first token and to the last."""
        todo = Work(**work)
        pictures = todo.pictures()[index : index + 1]
        first, started = FirstToken(), perf_counter()
        self._generate(todo, pictures, streamer=first)
        assert first.at is not None, "at least one token was generated"
        return {"first_token_seconds": first.at - started, "seconds": perf_counter() - started}

    def _generate(self, work: Work, pictures: list[list[np.ndarray]], **options: Any) -> list[list[int]]:
        text = self.processor.apply_chat_template(work.message, add_generation_prompt=True, tokenize=False)
        images = [image for each in pictures for image in each]
        inputs = self.processor(text=[text] * len(pictures), images=images, return_tensors="pt").to(self.model.dtype)
        output = self.model.generate(
            **inputs, max_new_tokens=work.new_tokens, do_sample=False, eos_token_id=None, pad_token_id=0, **options
        )
        generated: list[list[int]] = output[:, inputs["input_ids"].shape[1] :].tolist()
        return generated


if __name__ == "__main__":
    serve(Stock())
