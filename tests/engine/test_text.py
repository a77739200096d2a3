from __future__ import annotations

from collections.abc import Iterable, Sequence

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from skipvision.engine.text import AnswerText, Detokeniser, StopStrings


@pytest.fixture(scope="module")
def bytes_tokenizer() -> Tokenizer:
    """One token per byte: every character outside ASCII takes several."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({letter: i for i, letter in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


@pytest.fixture(scope="module")
def pieces_tokenizer() -> Tokenizer:
    """LLaMA's way: a leading mark for spaces, bytes as a last resort, the first space dropped."""
    words = ["<unk>", "▁red", "▁", "circle", "▁and", "s", "."]
    vocabulary = words + [f"<0x{byte:02X}>" for byte in range(256)]
    tokenizer = Tokenizer(models.BPE({word: i for i, word in enumerate(vocabulary)}, [], byte_fallback=True))
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return tokenizer


def deltas(tokenizer: Tokenizer, ids: Iterable[int]) -> list[str]:
    growing = Detokeniser(lambda some: tokenizer.decode(list(some)))
    return [*(growing.push(token) for token in ids), growing.finish()]


@pytest.mark.parametrize("text", ["plain words", "naïve café", "日本語のテキスト", "👩‍🚀 in 🚀", "a\n\tb  c ", "€"])
def test_pieces_join_to_the_whole_text_and_none_is_half_a_character(bytes_tokenizer: Tokenizer, text: str) -> None:
    pieces = deltas(bytes_tokenizer, bytes_tokenizer.encode(text).ids)
    assert "".join(pieces) == text
    assert not any("\ufffd" in piece for piece in pieces)


@pytest.mark.parametrize("text", ["plain words", "日本語", "🚀🚀", " a  b ", ""])
@pytest.mark.parametrize("cut", [0, 1, 2, 5])
def test_what_is_told_whole_is_what_its_pieces_join_to(
    bytes_tokenizer: Tokenizer, pieces_tokenizer: Tokenizer, text: str, cut: int
) -> None:
    for tokenizer, ids in (
        (bytes_tokenizer, bytes_tokenizer.encode(text).ids),
        (pieces_tokenizer, [1, *(7 + byte for byte in text.encode()), 4]),
        (pieces_tokenizer, [7 + byte for byte in text.encode()]),
    ):
        some = ids[: len(ids) - cut]
        whole, piecewise = (
            AnswerText(lambda few, t=tokenizer: t.decode(list(few)), (), whole=w) for w in (True, False)
        )
        assert [whole.push(token) for token in some] == [""] * len(some)
        told = whole.finish()
        expected = "".join([*map(piecewise.push, some), piecewise.finish()])
        assert told == whole.so_far() == expected


def test_a_stop_string_is_looked_for_as_it_comes_although_the_text_is_told_whole(bytes_tokenizer: Tokenizer) -> None:
    text = AnswerText(lambda few: bytes_tokenizer.decode(list(few)), ("stop",), whole=True)
    for token in bytes_tokenizer.encode("go stop").ids:
        text.push(token)
    assert text.stopped
    assert text.so_far() == "go "


def test_a_character_cut_off_at_the_end_is_left_out(bytes_tokenizer: Tokenizer) -> None:
    ids = bytes_tokenizer.encode("red 🚀").ids
    for cut in (1, 2, 3):
        assert "".join(deltas(bytes_tokenizer, ids[:-cut])) == "red "


def test_bytes_that_are_no_character_do_not_stop_the_text(bytes_tokenizer: Tokenizer) -> None:
    continuation = bytes_tokenizer.encode("é").ids[1]
    ids = [*bytes_tokenizer.encode("a").ids, continuation, *bytes_tokenizer.encode("b").ids]
    assert "".join(deltas(bytes_tokenizer, ids)) == bytes_tokenizer.decode(ids) == "a\ufffdb"


def test_spaces_stand_where_the_whole_text_has_them(pieces_tokenizer: Tokenizer) -> None:
    vocabulary = pieces_tokenizer.get_vocab()
    words = ["▁red", "▁", "circle", "s", "▁and", "▁red", "<0xE2>", "<0x82>", "<0xAC>", "▁", "s", "."]
    ids = [vocabulary[word] for word in words]
    assert "".join(deltas(pieces_tokenizer, ids)) == pieces_tokenizer.decode(ids) == "red circles and red€ s."


def test_tokens_without_text_of_their_own_are_passed_over() -> None:
    def decode(ids: Sequence[int]) -> str:
        return "".join("" if i == 9 else str(i) for i in ids)

    growing = Detokeniser(decode)
    assert [growing.push(token) for token in (9, 1, 9, 9, 2)] == ["", "1", "", "", "2"]
    assert growing.finish() == ""


def stopped(stop: Sequence[str], pieces: Iterable[str]) -> tuple[list[str], bool]:
    watch = StopStrings(stop)
    given = []
    for piece in pieces:
        given.append(watch.push(piece))
        if watch.found:
            return given, True
    return [*given, watch.finish()], False


def test_the_text_ends_before_a_stop_string_that_comes_in_pieces() -> None:
    assert stopped(["END"], ["red E", "N", "D blue"]) == (["red ", "", ""], True)


def test_text_that_only_began_like_a_stop_string_is_given_in_full() -> None:
    given, found = stopped(["END"], ["an E", "N", "T"])
    assert (given[:2], "".join(given), found) == (["an ", ""], "an ENT", False)


def test_what_is_held_back_at_the_end_is_given() -> None:
    assert stopped(["END"], ["the EN"]) == (["the ", "EN"], False)


def test_no_text_is_held_back_that_cannot_become_a_stop_string() -> None:
    assert stopped(["END"], ["abc", "def"])[0] == ["abc", "def", ""]


def test_the_earliest_of_several_stop_strings_counts() -> None:
    assert stopped(["blue", "red"], ["a red or blue one"]) == (["a "], True)


def test_a_stop_string_that_repeats_its_own_beginning_is_found() -> None:
    assert stopped(["aab"], ["a", "a", "a", "b"]) == (["", "", "a", ""], True)


def test_an_answer_joins_to_its_pieces_with_stop_strings_across_tokens(bytes_tokenizer: Tokenizer) -> None:
    answer = AnswerText(lambda ids: bytes_tokenizer.decode(list(ids)), ("stöp",))
    pieces = []
    for token in bytes_tokenizer.encode("a störm, stöp. more").ids:
        pieces.append(answer.push(token))
        if answer.stopped:
            break
    pieces.append(answer.finish())
    assert "".join(pieces) == answer.so_far() == "a störm, "
