"""Prompts to token ids through a checkpoint's own chat template, with user text that stays text."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from transformers import PreTrainedTokenizerFast

from skipvision.errors import ConfigError, PromptError
from skipvision.families.family import PromptTokens

_STAND_IN = "\u0001the user's words\u0001"
"""Rendered in place of the prompt, so that the template's part can be told from the user's."""


class PromptTokenizer:
    """Tokenizer and chat template of one checkpoint."""

    def __init__(self, processor: Any, *, image_token_id: int) -> None:
        self._processor = processor
        self._tokenizer = processor.tokenizer
        self._image_token_id = image_token_id
        self._decode = _decoder(self._tokenizer)
        self._specials = tuple(self._tokenizer.get_added_vocab())
        if not (getattr(processor, "chat_template", None) or self._tokenizer.chat_template):
            raise ConfigError("the checkpoint has no chat template; add one to its processor")

    def tokenize(self, prompt: str, *, num_images: int) -> PromptTokens:
        """See `Family.tokenize`."""
        content = [{"type": "image"}] * num_images + [{"type": "text", "text": _STAND_IN}]
        rendered = self._processor.apply_chat_template(
            [{"role": "user", "content": content}], add_generation_prompt=True, tokenize=False
        )
        before, after = rendered.split(_STAND_IN)
        if any(special in prompt for special in self._specials):
            ids = [*self._ids(before, starts=True), *self._plain_ids(prompt), *self._ids(after)]
        else:
            # One piece, as the stock processor reads it: tokenizers may join across the border.
            ids = self._ids(before + prompt + after, starts=True)
        text_ids: list[int] = []
        offsets: list[int] = []
        for token in ids:
            if token == self._image_token_id:
                offsets.append(len(text_ids))
            else:
                text_ids.append(token)
        return PromptTokens(tuple(text_ids), tuple(offsets))

    def detokenize(self, ids: Sequence[int]) -> str:
        """See `Family.detokenize`."""
        return self._decode(list(ids))

    def _ids(self, text: str, *, starts: bool = False) -> list[int]:
        """Ids of template text; at its start the tokenizer adds what it adds, unless the template wrote the BOS."""
        bos = self._tokenizer.bos_token
        add = starts and not (bos and text.startswith(bos))
        ids: list[int] = self._tokenizer(text, add_special_tokens=add)["input_ids"]
        return ids

    def _plain_ids(self, text: str) -> list[int]:
        """Ids of user text in which special tokens are plain characters."""
        ids: list[int] = self._tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
        if self._image_token_id in ids:  # the tokenizer does not hold its image token to be special
            raise PromptError("the prompt contains the model's image token; remove it", code="prompt_has_image_token")
        return ids


def _decoder(tokenizer: Any) -> Callable[[list[int]], str]:
    """Ids to text, special tokens left out, spaces as they are."""
    if isinstance(tokenizer, PreTrainedTokenizerFast):
        # What its own `decode` calls, which spends six times as long on the way, twice for every token of every answer.
        return partial(tokenizer.backend_tokenizer.decode, skip_special_tokens=True)
    return partial(tokenizer.decode, skip_special_tokens=True, clean_up_tokenization_spaces=False)
