"""Hooks that let nothing be said but what a grammar allows."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from skipvision.engine.grammar.library import load_llguidance, work_limits
from skipvision.errors import ConfigError, InputError


class GrammarHook:
    """One answer's way through a grammar. See `LogitsHook`; it can be forked.

    Args:
        matcher: llguidance's, in the state after `heard` tokens; the hook's own.
        end_ids: what may be said when the grammar is complete, and only then.
    """

    def __init__(self, matcher: Any, end_ids: np.ndarray, vocab_tokens: int, *, heard: int = 0) -> None:
        self._matcher, self._end_ids, self._vocab_tokens, self._heard = matcher, end_ids, vocab_tokens, heard

    def __call__(self, output_ids: Sequence[int], logits: Tensor) -> Tensor:
        """See `LogitsHook.__call__`. Ids that the tokenizer does not have are forbidden as well.

        Raises:
            InputError: the grammar takes more work than it may, or the tokenizer cannot write what it asks for.
        """
        for token in output_ids[self._heard :]:
            self._matcher.consume_token(token)
        self._heard = len(output_ids)
        forbidden = torch.from_numpy(self._forbidden(logits.shape[0]))
        return logits.masked_fill_(forbidden.to(logits.device), -torch.inf)

    def fork(self) -> GrammarHook:
        """See `ForkableHook.fork`."""
        return GrammarHook(self._matcher.deep_copy(), self._end_ids, self._vocab_tokens, heard=self._heard)

    def _forbidden(self, width: int) -> np.ndarray:
        """(width,) bool."""
        bits = np.frombuffer(self._matcher.compute_bitmask(), dtype=np.uint8)
        if self._matcher.is_error():  # llguidance says so after the fact, and allows the end tokens alone
            raise _lost(self._matcher)
        forbidden = np.ones(width, dtype=bool)
        known = min(width, self._vocab_tokens)
        forbidden[:known] = np.unpackbits(bits, count=known, bitorder="little") == 0
        if not self._matcher.is_accepting():
            # A checkpoint may end on a token that its tokenizer holds for plain text, which a string could contain.
            forbidden[self._end_ids[self._end_ids < width]] = True
        return forbidden


class Grammars:
    """Makes hooks for one tokenizer. Make it once: reading a large vocabulary takes up to a second.

    Args:
        tokenizer: a fast one of transformers, whose tokens are bytes, as those of published checkpoints are.
        eos_token_ids: what ends an answer, as `Family.eos_token_ids`.

    Raises:
        ConfigError: llguidance is not installed, or cannot read this tokenizer.
    """

    def __init__(self, tokenizer: Any, eos_token_ids: Collection[int]) -> None:
        self._llguidance = load_llguidance()
        from llguidance.hf import from_tokenizer

        end_ids = sorted(token for token in eos_token_ids if token < len(tokenizer))
        if not end_ids:
            raise ConfigError("the tokenizer has none of the model's end tokens, so no structured answer would end")
        try:
            self._tokenizer = from_tokenizer(tokenizer, eos_token=end_ids)
        except ValueError as error:
            raise ConfigError(
                f"the model's tokenizer cannot be held to a grammar ({error}); structured output needs a fast one of "
                "bytes, as byte-level BPE or SentencePiece with byte fallback are"
            ) from error
        self._end_ids = np.array(end_ids)
        self._limits = work_limits(self._llguidance)

    def hook(self, grammar: str) -> GrammarHook:
        """A hook for one request, which holds its answers to what `json_grammar` returned.

        Takes what `json_grammar` took. It is compiled anew for each: copies of a matcher share the states of its
        patterns, so that with one kept for all, the limit on states would sooner or later end everybody's answers.

        Raises:
            InputError: `schema_invalid`, the grammar cannot be followed with this tokenizer.
        """
        matcher = self._llguidance.LLMatcher(self._tokenizer, grammar, log_level=0, limits=self._limits)
        matcher.compute_bitmask()
        if matcher.is_error():
            raise _lost(matcher)
        return GrammarHook(matcher, self._end_ids, self._tokenizer.vocab_size)


def _lost(matcher: Any) -> InputError:
    what = matcher.get_error().partition("\n")[0][:200]
    return InputError(
        f"the answer cannot be held to its schema any further ({what}); simplify its patterns and alternatives",
        code="schema_invalid",
    )
