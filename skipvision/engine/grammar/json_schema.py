"""A caller's JSON schema becomes a grammar, or is refused with the place: nothing in it is ignored, nothing fetched.

It is read as draft 2020-12, whatever it says of itself. Our own limits come first: llguidance compiles what would take
it minutes, and what could never end, without a word.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from skipvision.engine.grammar.endless import find_endless
from skipvision.engine.grammar.library import load_llguidance, work_limits
from skipvision.engine.grammar.reader import SchemaReader, refusal

# At most one space between tokens: let indent, a model that is drawn from spends most of its answer on blanks.
_WHITESPACE = " "


def json_grammar(schema: Mapping[str, Any] | None) -> str:
    """The grammar of all JSON values that satisfy `schema`, as `Grammars.hook` takes it. None: of all JSON objects.

    Takes milliseconds for a usual schema, and about 0.2 seconds for the worst that is not refused.

    Raises:
        InputError: `schema_invalid`; it is no schema, asks for what cannot be followed, or is too large.
        ConfigError: llguidance is not installed.
    """
    llguidance = load_llguidance()
    if schema is None:
        schema = {"type": "object"}
    reader = SchemaReader()
    read = reader.read(schema)
    reader.check_references()
    if (endless := find_endless(reader.schemas)) is not None:
        raise refusal(
            endless,
            "contains itself without end, or is reached through too many references; give it a way out, as an "
            "optional property or by anyOf",
        )
    grammar: str = llguidance.LLMatcher.grammar_from_json_schema(
        json.dumps(read, ensure_ascii=True),
        overrides={"lenient": False, "coerce_one_of": False, "whitespace_pattern": _WHITESPACE},
    )
    _try(llguidance, grammar)
    return grammar


class _Bytes:
    """The smallest tokenizer that can write anything: its tokens are the bytes, and an end."""

    eos_token_id = 256
    bos_token_id = None
    tokens = (*(bytes([byte]) for byte in range(256)), b"<end>")
    special_token_ids = (256,)

    def __call__(self, text: str | bytes) -> list[int]:
        return list(text if isinstance(text, bytes) else text.encode())


def _try(llguidance: Any, grammar: str) -> None:
    """Compile a grammar and look for its first byte: some faults show only there."""
    tokenizer = llguidance.LLTokenizer(llguidance.TokenizerWrapper(_Bytes()), slices=[])
    matcher = llguidance.LLMatcher(tokenizer, grammar, log_level=0, limits=work_limits(llguidance))
    matcher.compute_bitmask()
    if matcher.is_error():
        said = " ".join(matcher.get_error().split())[:160]
        remedy = "use anyOf for it" if said.startswith("oneOf") else "leave that out, or simplify it"
        raise refusal("#", f"cannot be followed: {said.removesuffix(' <non-verbose/>')}; {remedy}")
    if warnings := matcher.get_grammar_warnings():
        raise refusal("#", f"cannot be followed to the letter: {warnings[0][:160]}; leave that out")
