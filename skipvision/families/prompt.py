"""Prompts to token ids through a checkpoint's own chat template, with user text that stays text."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import accumulate
from typing import Any

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerFast

from skipvision.conversation import Conversation, as_templates_read, images_of
from skipvision.errors import ConfigError, PromptError
from skipvision.families.family import ConversationTokens, PromptTokens

_STAND_IN = "\u0001{}\u0001"
"""Rendered in place of what people wrote, so that the template's part can be told from theirs."""
_WORDS = re.compile("\u0001(\\d+)\u0001")
_PROMPTS_REMEMBERED = 64
"""A job asks the same of every image, and a template takes longer to write a prompt than a GPU to begin with it."""


@dataclass(frozen=True, slots=True)
class _Piece:
    """Some text that the template wrote, or that somebody said."""

    text: str
    is_said: bool
    answer: int | None
    """The answer that it belongs to."""


class PromptTokenizer:
    """Tokenizer and chat template of one checkpoint."""

    def __init__(self, processor: Any, *, image_token_id: int) -> None:
        self._processor = processor
        self._tokenizer = processor.tokenizer
        self._image_token_id = image_token_id
        self._decode = _decoder(self._tokenizer)
        self._specials = tuple(self._tokenizer.get_added_vocab())
        self._remembered: dict[tuple[str, int], PromptTokens] = {}
        if not (getattr(processor, "chat_template", None) or self._tokenizer.chat_template):
            raise ConfigError("the checkpoint has no chat template; add one to its processor")

    def tokenize(self, prompt: str | Conversation, *, num_images: int) -> PromptTokens:
        """See `Family.tokenize`."""
        if not isinstance(prompt, str):
            return self._tokenize_messages(prompt)
        tokens = self._remembered.get((prompt, num_images))
        if tokens is None:
            tokens = self._tokenize_prompt(prompt, num_images)
            if len(self._remembered) >= _PROMPTS_REMEMBERED:
                self._remembered.clear()
            self._remembered[prompt, num_images] = tokens
        return tokens

    def _tokenize_prompt(self, prompt: str, num_images: int) -> PromptTokens:
        stand_in = _STAND_IN.format(0)
        content = [{"type": "image"}] * num_images + [{"type": "text", "text": stand_in}]
        before, after = self._rendered([{"role": "user", "content": content}], then_answer=True).split(stand_in)
        pieces = [_Piece(before, False, None), _Piece(prompt, True, None), _Piece(after, False, None)]
        tokens = self._tokens(pieces)
        return PromptTokens(tokens.text_ids, tokens.image_offsets)

    def _tokenize_messages(self, conversation: Conversation) -> PromptTokens:
        said: list[str] = []
        marked = [_marked(as_templates_read(message), said) for message in conversation]
        try:
            rendered = self._rendered(marked, then_answer=True)
        except TemplateError as error:  # templates refuse by this what their model was not made for
            raise _not_for_this_model(f"its chat template says: {error}") from error
        if [int(number) for number in _WORDS.findall(rendered)] != [*range(len(said))]:
            raise _not_for_this_model("its chat template leaves out a part, as many do with system messages")
        tokens = self._tokens([*_split(rendered, said, None)])
        if len(tokens.image_offsets) != len(images_of(conversation)):
            raise _not_for_this_model("its chat template shows other images than they do")
        return PromptTokens(tokens.text_ids, tokens.image_offsets)

    def tokenize_conversation(self, messages: Sequence[Mapping[str, Any]]) -> ConversationTokens:
        """Put questions and answers through the chat template, as they are read when each answer is written.

        An answer ends with what the template writes after it up to an end-of-sequence token, or with that token where
        the template writes none: LLaVA-1.5's does not, and a model would never learn to stop.

        Args:
            messages: `role` and `content`, a list of `{"type": "image"}` and `{"type": "text", "text": …}`; roles
                take turns, and the last message is an answer.

        Raises:
            ConfigError: the template does not write conversations message by message.
            PromptError: a text contains the model's image token and its tokenizer cannot read it as plain text.
        """
        said: list[str] = []
        marked = [_marked(message, said) for message in messages]
        pieces: list[_Piece] = []
        done, number = 0, 0
        whole = self._rendered(marked, then_answer=False)
        for at, message in enumerate(marked):
            if message["role"] != "assistant":
                continue
            asked = self._rendered(marked[:at], then_answer=True)
            until = whole if at == len(marked) - 1 else self._rendered(marked[: at + 1], then_answer=False)
            if not (whole.startswith(until) and until.startswith(asked) and len(asked) >= done):
                raise ConfigError("the checkpoint's chat template writes a message differently once others follow it")
            pieces += _split(whole[done : len(asked)], said, None)
            answer, rest = self._ended(until[len(asked) :])
            pieces += _split(answer, said, number)
            done, number = len(until) - len(rest), number + 1
        return self._tokens(pieces)

    def detokenize(self, ids: Sequence[int]) -> str:
        """See `Family.detokenize`."""
        return self._decode(list(ids))

    def _rendered(self, messages: Sequence[Mapping[str, Any]], *, then_answer: bool) -> str:
        text: str = self._processor.apply_chat_template(
            list(messages), add_generation_prompt=then_answer, tokenize=False
        )
        return text

    def _ended(self, answer: str) -> tuple[str, str]:
        """An answer with its end, and what the template writes between it and the next message."""
        *_, last = (None, *_WORDS.finditer(answer))
        end: str | None = self._tokenizer.eos_token
        if last is None or end is None:
            lack = "leaves out what the assistant says" if end else "ends nothing: its tokenizer has no EOS token"
            raise ConfigError(f"the checkpoint cannot be taught answers: its chat template {lack}")
        written = answer.find(end, last.end())
        if written >= 0:
            return answer[: written + len(end)], answer[written + len(end) :]
        return answer[: last.end()] + end, answer[last.end() :]

    def _tokens(self, pieces: Sequence[_Piece]) -> ConversationTokens:
        """The ids of all pieces, images set apart."""
        text_ids: list[int] = []
        offsets: list[int] = []
        answers: dict[int, tuple[int, int]] = {}
        for token, answer in self._ids_of(pieces):
            if token == self._image_token_id:
                offsets.append(len(text_ids))
                continue
            text_ids.append(token)
            if answer is not None:
                answers[answer] = (answers.get(answer, (len(text_ids) - 1,))[0], len(text_ids))
        return ConversationTokens(tuple(text_ids), tuple(offsets), tuple(answers.values()))

    def _ids_of(self, pieces: Sequence[_Piece]) -> Iterator[tuple[int, int | None]]:
        """Ids, and for each the answer that it belongs to."""
        answers = any(piece.answer is not None for piece in pieces)
        special = any(special in piece.text for piece in pieces if piece.is_said for special in self._specials)
        if special or (answers and not self._tokenizer.is_fast):
            for at, piece in enumerate(pieces):
                ids = self._plain_ids(piece.text) if piece.is_said else self._ids(piece.text, starts=at == 0)
                yield from ((token, piece.answer) for token in ids)
            return
        # One text, as the stock processor reads it: tokenizers may join across borders.
        text = "".join(piece.text for piece in pieces)
        if not answers:
            yield from ((token, None) for token in self._ids(text, starts=True))
            return
        read = self._tokenizer(text, add_special_tokens=self._adds_bos(text), return_offsets_mapping=True)
        ends = [*accumulate(len(piece.text) for piece in pieces)]
        for token, (_, stop) in zip(read["input_ids"], read["offset_mapping"], strict=True):
            # The last character says whose a token is: what joins a space and a word belongs to the word.
            yield token, pieces[bisect_left(ends, stop)].answer if stop else None

    def _adds_bos(self, text: str) -> bool:
        """Whether the tokenizer is to add what it adds at the start: not where the template wrote the BOS."""
        bos = self._tokenizer.bos_token
        return not (bos and text.startswith(bos))

    def _ids(self, text: str, *, starts: bool = False) -> list[int]:
        """Ids of template text."""
        ids: list[int] = self._tokenizer(text, add_special_tokens=starts and self._adds_bos(text))["input_ids"]
        return ids

    def _plain_ids(self, text: str) -> list[int]:
        """Ids of user text in which special tokens are plain characters."""
        ids: list[int] = self._tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
        if self._image_token_id in ids:  # the tokenizer does not hold its image token to be special
            raise PromptError("the prompt contains the model's image token; remove it", code="prompt_has_image_token")
        return ids


def _not_for_this_model(why: str) -> PromptError:
    return PromptError(f"the model cannot read these messages: {why}", code="messages_invalid")


def _marked(message: Mapping[str, Any], said: list[str]) -> dict[str, Any]:
    """The message with stand-ins for its texts, which are added to `said`."""
    content = []
    for part in message["content"]:
        if part["type"] == "text":
            content.append({"type": "text", "text": _STAND_IN.format(len(said))})
            said.append(part["text"])
        else:
            content.append({"type": "image"})
    return {"role": message["role"], "content": content}


def _split(rendered: str, said: Sequence[str], answer: int | None) -> Iterator[_Piece]:
    """What the template wrote and what people said, in turn."""
    for at, text in enumerate(_WORDS.split(rendered)):
        if at % 2:
            yield _Piece(said[int(text)], True, answer)
        elif text:
            yield _Piece(text, False, answer)


def _decoder(tokenizer: Any) -> Callable[[list[int]], str]:
    """Ids to text, special tokens left out, spaces as they are."""
    if isinstance(tokenizer, PreTrainedTokenizerFast):
        # What its own `decode` calls, which spends six times as long on the way, twice for every token of every answer.
        return partial(tokenizer.backend_tokenizer.decode, skip_special_tokens=True)
    return partial(tokenizer.decode, skip_special_tokens=True, clean_up_tokenization_spaces=False)
