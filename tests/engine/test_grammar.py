"""An answer that is to be JSON of some schema can be nothing else, and a schema that would cost too much is refused."""

from __future__ import annotations

import gc
import json
import sys
import time
import weakref
from collections.abc import Set
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from skipvision.engine import Answer, Engine, Request, Sampling
from skipvision.engine.grammar import Grammars, json_grammar
from skipvision.engine.logits_hook import ForkableHook
from skipvision.errors import ConfigError, InputError
from skipvision.families.checkpoint import SHIPPED_MODELS
from skipvision.families.llava import load_processor
from tests.tiny_llava import build_tokenizer

DRAWN = Sampling(max_tokens=200, temperature=1.0)
NODE = {
    "type": "object",
    "properties": {"value": {"type": "integer"}, "next": {"anyOf": [{"$ref": "#/$defs/node"}, {"type": "null"}]}},
    "required": ["value", "next"],
    "additionalProperties": False,
}
SCHEMAS: dict[str, dict[str, Any]] = {
    "object": {
        "type": "object",
        "properties": {"colour": {"type": "string", "maxLength": 12}, "sure": {"type": "boolean"}},
        "required": ["colour", "sure"],
        "additionalProperties": False,
    },
    "optional": {
        "title": "notes for people constrain nothing",
        "$schema": "http://json-schema.org/draft-07/schema#",
        "type": "object",
        "properties": {"a": {"type": "null"}, "b": {"type": "null"}, "c": {"type": "null"}},
        "required": ["b"],
        "additionalProperties": False,
    },
    "enum": {"enum": ["red", "a circle", 7, None, True, 1.5, {"shape": ["star"]}, 'say "é"\n']},
    "const": {"const": {"ok": [1, "ü", -0.25]}},
    "array": {"type": "array", "items": {"enum": ["red", "blue"]}, "minItems": 2, "maxItems": 4},
    "tuple": {"type": "array", "prefixItems": [{"type": "boolean"}, {"type": "null"}], "items": False, "minItems": 2},
    "nested": {
        "type": "object",
        "properties": {
            "shapes": {
                "type": "array",
                "maxItems": 2,
                "items": {
                    "type": "object",
                    "properties": {"size": {"enum": ["large", "small"]}, "at": {"$ref": "#/$defs/a%20point"}},
                    "required": ["size", "at"],
                    "additionalProperties": False,
                },
            }
        },
        "required": ["shapes"],
        "additionalProperties": False,
        "$defs": {"a point": {"type": "array", "items": {"enum": [0, 1]}, "minItems": 2, "maxItems": 2}},
    },
    "integer": {"type": "integer", "minimum": -20, "exclusiveMaximum": 1000},
    "number": {"type": "number", "minimum": 0.25, "maximum": 99.5},
    "multiple": {"type": "integer", "multipleOf": 7, "minimum": 0, "maximum": 10_000},
    "unicode": {"type": "string", "minLength": 3, "maxLength": 6},
    "cyrillic": {"type": "string", "pattern": r"^[\u0431-\u044f]{2,5}$"},
    "anyOf": {"anyOf": [{"type": "integer", "minimum": 0, "maximum": 9}, {"type": "string", "maxLength": 4}]},
    "oneOf": {"oneOf": [{"type": "null"}, {"type": "array", "maxItems": 0}]},
    "allOf": {"allOf": [{"type": "integer", "minimum": 3}, {"maximum": 5}]},
    "map": {
        "type": "object",
        "patternProperties": {"^[abc]{1,2}$": {"type": "null"}},
        "additionalProperties": False,
        "maxProperties": 2,
    },
    "date": {"type": "string", "format": "date"},
}

LOOP = {"$ref": "#/$defs/a"}
HOSTILE: dict[str, tuple[Any, str]] = {
    "a list": ([], "# must be an object; got list"),
    "true": (True, "# must be an object; got bool"),
    "text": ("{}", "# must be an object; got str"),
    "no such type": ({"type": "colour"}, "Invalid type: colour"),
    "a mistyped keyword": ({"requried": ["a"]}, "# has the keyword 'requried', which is not supported"),
    "not": ({"not": {"type": "null"}}, "say what is allowed instead"),
    "if": ({"if": {}, "then": {}}, "'if', which is not supported"),
    "uniqueItems": ({"type": "array", "uniqueItems": True}, "'uniqueItems'"),
    "contains": ({"items": {"contains": {}}}, "#/items has the keyword 'contains'"),
    "its own switches": ({"x-guidance": {"lenient": True}, "type": "object"}, "'x-guidance'"),
    "another base": ({"$defs": {"a": {"$anchor": "x"}}}, "#/.defs/a has the keyword '.anchor'"),
    "a dynamic reference": ({"$dynamicRef": "#a"}, "dynamicRef"),
    "a remote reference": ({"$ref": "http://169.254.169.254/latest"}, "others are not followed"),
    "a file": ({"$ref": "file:///etc/passwd"}, "others are not followed"),
    "a remote reference inside": ({"items": {"$ref": "other.json#/a"}}, r"#/items/\$ref must be a reference inside"),
    "a reference to nothing": ({"$ref": "#/$defs/gone"}, "refers to what is no schema"),
    "a reference to a value": ({"anyOf": [{"const": {}}, {"$ref": "#/anyOf/0/const"}]}, "refers to what is no schema"),
    "itself": ({"$ref": "#"}, "# contains itself without end"),
    "two in a circle": ({**LOOP, "$defs": {"a": {"$ref": "#/$defs/b"}, "b": LOOP}}, "contains itself without end"),
    "needs itself": ({"properties": {"a": {"$ref": "#"}}, "required": ["a"]}, "contains itself without end"),
    "lists of itself": ({"items": {"$ref": "#"}, "minItems": 1}, "contains itself without end"),
    "only alternatives of itself": ({"anyOf": [{"$ref": "#"}, {"allOf": [{"$ref": "#"}]}]}, "without end"),
    "a loop aside": ({"properties": {"a": LOOP}, "$defs": {"a": LOOP}}, "#/properties/a contains itself without end"),
    "a pattern that is none": ({"type": "string", "pattern": "(("}, "regex parse error"),
    "looking ahead": ({"type": "string", "pattern": "a(?=b)"}, "look-around"),
    "a giant pattern": ({"type": "string", "pattern": "a|b" * 50_000}, "more than 65536 characters"),
    "repeated repeats": ({"type": "string", "pattern": "^(((a{999}){999}){999}){999}$", "minLength": 1}, "cannot be"),
    "patterns joined": ({"allOf": [{"pattern": f".*{letter}.*"} for letter in "abcdefghijklmnop"]}, "more than 8 patt"),
    "hard patterns joined": ({"allOf": [{"pattern": f"(.*{x}.{{30}}){{3}}"} for x in "abcd"]}, "cannot be followed"),
    "patterned names": ({"type": "object", "patternProperties": {f"^.*{n}": {} for n in range(9)}}, "more than 8 patt"),
    "a huge enum": ({"enum": list(range(100_000))}, "more than 2000 parts"),
    "a long text": ({"const": "x" * 70_000}, "more than 65536 characters"),
    "properties by the thousand": ({"properties": {f"p{n}": {} for n in range(5_000)}}, "to more than 500"),
    "properties joined": (
        {"allOf": [{"properties": {f"p{part}-{n}": {} for n in range(300)}} for part in range(5)]},
        "to more than 500",
    ),
    "doubling": (
        {"allOf": [{"anyOf": [{"properties": {f"a{i}{j}": {"const": j}}} for j in range(6)]} for i in range(8)]},
        "schema too large",
    ),
    "a large multiple": ({"type": "integer", "multipleOf": 99_999_999}, "#/multipleOf is too large"),
    "a million": ({"type": "number", "multipleOf": 1e6}, "#/multipleOf is too large"),
    "multiples joined": ({"allOf": [{"multipleOf": 97}, {"multipleOf": 89}]}, "several multipleOf"),
    "multiples of nothing": ({"type": "integer", "multipleOf": 0}, "above 0"),
    "no alternative": ({"anyOf": []}, "must be a list of schemas, and not empty"),
    "no value": ({"enum": []}, "must be a list of values, and not empty"),
    "nothing at all": ({"type": "integer", "minimum": 5, "maximum": 3}, "Unsatisfiable"),
    "a contradiction": ({"allOf": [{"type": "string"}, {"type": "integer"}]}, "Unsatisfiable"),
    "overlapping alternatives": ({"oneOf": [{"type": "integer"}, {"type": "number"}]}, "use anyOf for it"),
    "an unknown format": ({"type": "string", "format": "colour"}, "Unknown format: colour"),
    "a list of items": ({"items": [{}]}, "#/items must be an object, true or false; got list"),
    "a count below 0": ({"minLength": -1}, "#/minLength must be a whole number from 0 up"),
    "a count of halves": ({"minItems": 1.5}, "#/minItems must be a whole number"),
    "required that is no list": ({"required": "a"}, "#/required must be a list of names"),
    "several names at least": ({"minProperties": 2}, "#/minProperties must be 0 or 1"),
    "infinity": ({"const": float("inf")}, "holds inf, which is no JSON"),
    "no number": ({"minimum": float("nan")}, "holds nan"),
    "more digits than are read": ({"const": 123456789.12345679}, "more than 15 digits"),
    "a whole number that is not exact": ({"const": 2**63}, r"above 2\*\*53"),
    "half a character": ({"const": "\ud800"}, "lone surrogate"),
    "a name that is no text": ({"properties": {1: {}}}, "no text but int"),
    "bytes": ({"const": b"a"}, "holds a bytes, which is no JSON"),
}


def nested(levels: int, inner: Any) -> Any:
    for _ in range(levels):
        inner = {"type": "array", "items": inner}
    return inner


def circular() -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "object"}
    schema["properties"] = {"a": schema}
    return schema


HOSTILE["deep"] = nested(5_000, {}), "nested more than 64 deep"
HOSTILE["deep values"] = {"const": json.loads("[" * 500 + "]" * 500)}, "nested more than 64 deep"
HOSTILE["an object in itself"] = circular(), "nested more than 64 deep"
HOSTILE["a wide object in itself"] = {"anyOf": [circular()] * 1_000}, "nested more than 64 deep"


@pytest.fixture(scope="module")
def engine() -> Engine:
    """The small model that ships with the package; its tokenizer can write every byte."""
    return Engine.load("zoo-plain", device="cpu", dtype="float32")


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return load_processor(SHIPPED_MODELS["zoo-plain"]).tokenizer


@pytest.fixture(scope="module")
def grammars(engine: Engine, tokenizer: Any) -> Grammars:
    return Grammars(tokenizer, engine.family.eos_token_ids)


def ask(hook: object = None, *, sampling: Sampling = DRAWN, n: int = 1) -> Request:
    return Request(prompt="What is in the picture?", sampling=sampling, logits_hook=hook, n=n)


def drawn(seed: int) -> Sampling:
    return Sampling(max_tokens=DRAWN.max_tokens, temperature=1.0, seed=seed)


def check(answer: Answer, schema: dict[str, Any]) -> None:
    assert (answer.finish_reason, answer.error) == ("stop", None), answer.text
    Draft202012Validator(schema).validate(json.loads(answer.text))


@pytest.mark.parametrize("name", SCHEMAS)
def test_what_is_said_is_of_the_schema(engine: Engine, grammars: Grammars, name: str) -> None:
    schema = SCHEMAS[name]
    grammar = json_grammar(schema)
    for answer in engine.answer([ask(grammars.hook(grammar), sampling=drawn(seed)) for seed in range(2)]):
        check(answer, schema)


def test_a_schema_may_contain_itself(grammars: Grammars, tokenizer: Any) -> None:
    hook = grammars.hook(json_grammar({"$ref": "#/$defs/node", "$defs": {"node": NODE}}))
    text = '{"value": 1, "next": {"value": 20,"next": {"value":3,"next":null} }}'
    said = list[int]()
    for token in tokenizer(text, add_special_tokens=False)["input_ids"]:
        assert token in allowed(hook, said), tokenizer.decode([*said, token])
        said.append(token)
    assert allowed(hook, said) == {tokenizer.eos_token_id}


def test_any_object_is_an_object(engine: Engine, grammars: Grammars) -> None:
    asked = [ask(grammars.hook(json_grammar(None)), sampling=drawn(seed)) for seed in range(4)]
    ended = [answer for answer in engine.answer(asked) if answer.finish_reason == "stop"]
    assert ended
    assert all(isinstance(json.loads(answer.text), dict) for answer in ended)


def test_each_of_several_answers_finds_its_own_way(engine: Engine, grammars: Grammars) -> None:
    hook = grammars.hook(json_grammar(SCHEMAS["nested"]))
    assert isinstance(hook, ForkableHook)
    answers = engine.answer([ask(hook, n=3)])
    for answer in answers:
        check(answer, SCHEMAS["nested"])
    assert len({answer.text for answer in answers}) > 1


def test_a_fork_in_the_middle_goes_on_from_there(grammars: Grammars, tokenizer: Any) -> None:
    hook = grammars.hook(json_grammar({"const": [1, 2]}))
    said = tokenizer("[1", add_special_tokens=False)["input_ids"]
    allowed(hook, said)
    fork = hook.fork()
    closed = tokenizer("[1,2]", add_special_tokens=False)["input_ids"]
    assert allowed(hook, closed) == {tokenizer.eos_token_id}
    comma = tokenizer.convert_tokens_to_ids(",")
    assert comma in allowed(fork, said)


def test_who_has_no_grammar_says_what_it_would_say_alone(engine: Engine, grammars: Grammars) -> None:
    [alone] = engine.answer([ask()])
    held, beside = engine.answer([ask(grammars.hook(json_grammar(SCHEMAS["object"]))), ask()])
    check(held, SCHEMAS["object"])
    assert beside.output_ids == alone.output_ids


def test_what_does_not_fit_ends_for_want_of_room(engine: Engine, grammars: Grammars) -> None:
    hook = grammars.hook(json_grammar({"type": "array", "items": {"const": "red"}, "minItems": 1_000_000}))
    [answer] = engine.answer([ask(hook, sampling=Sampling(max_tokens=20, temperature=1.0))])
    assert (answer.finish_reason, len(answer.output_ids)) == ("length", 20)
    assert answer.text.startswith("[")


def test_an_end_that_is_not_heeded_is_said_again(engine: Engine, grammars: Grammars) -> None:
    hook = grammars.hook(json_grammar({"const": 7}))
    [answer] = engine.answer([ask(hook, sampling=Sampling(max_tokens=5, temperature=1.0, ignore_eos=True))])
    assert (answer.text, len(answer.output_ids)) == ("7", 5)


def allowed(hook: Any, said: list[int], width: int = 640) -> set[int]:
    return set(hook(said, torch.zeros(width)).isfinite().nonzero().flatten().tolist())


def test_the_end_is_said_when_the_grammar_is_complete_and_only_then(grammars: Grammars, tokenizer: Any) -> None:
    hook = grammars.hook(json_grammar({"type": "integer", "minimum": 1, "maximum": 99}))
    end, [one], [two] = tokenizer.eos_token_id, *tokenizer(["1", "2"], add_special_tokens=False)["input_ids"]
    assert end not in allowed(hook, [])
    assert {end, two} < allowed(hook, [one])
    assert allowed(hook, [one, two]) == {end}


def test_ids_that_no_token_has_are_forbidden(grammars: Grammars, tokenizer: Any) -> None:
    hook = grammars.hook(json_grammar({"type": "string"}))
    quote = tokenizer.convert_tokens_to_ids('"')
    for width in (640, 1_000, len(tokenizer), 300):
        assert max(allowed(hook.fork(), [quote], width)) < min(width, len(tokenizer))


def test_special_tokens_are_no_part_of_a_string(grammars: Grammars, tokenizer: Any) -> None:
    hook = grammars.hook(json_grammar({"type": "string"}))
    assert not set(tokenizer.all_special_ids) & allowed(hook, [tokenizer.convert_tokens_to_ids('"')])


def test_an_end_token_that_could_be_text_is_still_none_within_a_string() -> None:
    letters = pre_tokenizers.ByteLevel.alphabet()
    vocabulary = {letter: index for index, letter in enumerate([*sorted(letters), "END"])}
    plain = Tokenizer(models.BPE(vocabulary, []))
    plain.pre_tokenizer, plain.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=plain)
    hook = Grammars(tokenizer, {256}).hook(json_grammar({"type": "string"}))
    quote = vocabulary['"']
    assert 256 not in allowed(hook, [quote], 257)
    assert allowed(hook, [quote, quote], 257) == {256}


def test_a_model_may_end_in_several_ways(tokenizer: Any) -> None:
    ends = {tokenizer.eos_token_id, tokenizer.pad_token_id, 100_000}
    hook = Grammars(tokenizer, ends).hook(json_grammar({"const": 7}))
    [seven] = tokenizer("7", add_special_tokens=False)["input_ids"]
    assert allowed(hook, [seven]) == ends - {100_000}


def test_no_more_than_one_space_is_written_between_tokens(grammars: Grammars, tokenizer: Any) -> None:
    hook = grammars.hook(json_grammar(None))
    brace, space = (tokenizer(text, add_special_tokens=False)["input_ids"] for text in ("{", " "))
    blanks = {token for token in range(len(tokenizer)) if tokenizer.decode([token]).isspace()}
    assert allowed(hook, brace) & blanks == {*space}
    assert not allowed(hook, brace + space) & blanks


def test_a_hook_holds_on_to_nothing(tokenizer: Any) -> None:
    grammars = Grammars(tokenizer, {tokenizer.eos_token_id})
    hook = grammars.hook(json_grammar(None))
    gone = weakref.ref(hook), weakref.ref(grammars)
    gc.disable()
    try:
        del hook, grammars
        assert [each() for each in gone] == [None, None]
    finally:
        gc.enable()


def test_grammars_that_come_again_do_not_wear_out(grammars: Grammars, tokenizer: Any) -> None:
    """Copies of a matcher share their states: were they copied, the limit of states would be one for all requests."""
    grammar, quote = json_grammar({"type": "string", "pattern": ".*a.{40}"}), tokenizer.convert_tokens_to_ids('"')
    for _ in range(20):
        wander(grammars.hook(grammar), [quote], never={quote}, steps=60)


def test_a_grammar_too_laborious_to_follow_ends_in_a_refusal(grammars: Grammars, tokenizer: Any) -> None:
    """In an engine this ends the request alone, as any hook that fails does."""
    hook = grammars.hook(json_grammar({"type": "string", "pattern": "(.{0,1000}x){0,1000}"}))
    quote = tokenizer.convert_tokens_to_ids('"')
    with pytest.raises(InputError, match="cannot be held to its schema any further") as refused:
        wander(hook, [quote], never={quote}, steps=2_000)
    assert refused.value.code == "schema_invalid"


def wander(hook: Any, said: list[int], *, steps: int, never: Set[int] = frozenset()) -> None:
    generator = torch.Generator().manual_seed(0)
    for _ in range(steps):
        choices = sorted(allowed(hook, said) - never)
        said.append(choices[int(torch.randint(len(choices), (), generator=generator))])


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_schema_is_refused_at_once(kind: str) -> None:
    schema, says = HOSTILE[kind]
    started = time.process_time()
    with pytest.raises(InputError, match=says) as refused:
        json_grammar(schema)
    assert refused.value.code == "schema_invalid"
    assert len(str(refused.value)) < 600
    assert time.process_time() - started < 1


@pytest.mark.parametrize(
    "schema",
    [
        {"enum": [f"value {n}" for n in range(1_900)]},
        {"type": "object", "properties": {f"p{n}": {"type": "string"} for n in range(450)}},
        {"type": "integer", "multipleOf": 9_973},
        {"type": "string", "pattern": "^(" + "|".join(f"x{n}y" for n in range(8_000)) + ")$"},
        {"anyOf": [{"type": "string", "pattern": f"{n}.{{50,100}}{n}.*x"} for n in range(500)]},
        {"$ref": "#/$defs/0", "$defs": {**{f"{n}": {"$ref": f"#/$defs/{n + 1}"} for n in range(600)}, "600": {}}},
    ],
    ids=["enum", "properties", "multiple", "pattern", "patterns", "references"],
)
def test_the_largest_that_is_taken_takes_under_a_second(schema: dict[str, Any]) -> None:
    started = time.process_time()
    json_grammar(schema)
    assert time.process_time() - started < 1


# fmt: off
WORDS = st.sampled_from([
    "type", "const", "enum", "required", "properties", "items", "anyOf", "oneOf", "allOf", "$ref", "$defs", "pattern",
    "format", "minLength", "maxItems", "minimum", "multipleOf", "additionalProperties", "patternProperties",
    "prefixItems", "not", "title",
])
# fmt: on
LEAVES = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["string", "object", "integer", "#", "#/$defs/a", "#/properties/a", "a*", "date"])
)
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(WORDS | st.text(max_size=4), inner, max_size=5),
    max_leaves=25,
)


@settings(max_examples=300, deadline=None)
@given(VALUES | st.dictionaries(WORDS, VALUES, max_size=5))
def test_any_value_makes_a_grammar_or_is_refused(value: Any) -> None:
    code = "schema_invalid"
    try:
        assert json.loads(json_grammar(value))
    except InputError as error:
        code = error.code
    assert code == "schema_invalid"


def test_a_tokenizer_that_cannot_be_held_to_a_grammar_is_named() -> None:
    with pytest.raises(ConfigError, match=r"the model's tokenizer cannot be held to a grammar .* byte-level BPE"):
        Grammars(build_tokenizer(512), {3})


def test_a_tokenizer_without_the_model_s_end_is_named(tokenizer: Any) -> None:
    with pytest.raises(ConfigError, match="none of the model's end tokens"):
        Grammars(tokenizer, {100_000})


def test_without_the_library_it_is_named_with_the_remedy(monkeypatch: pytest.MonkeyPatch, tokenizer: Any) -> None:
    monkeypatch.setitem(sys.modules, "llguidance", None)
    for need in (lambda: json_grammar(None), lambda: Grammars(tokenizer, {2})):
        with pytest.raises(ConfigError, match=r"pip install 'skipvision\[serve\]'"):
            need()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
def test_logits_on_a_gpu_are_held_as_well(grammars: Grammars) -> None:
    hook = grammars.hook(json_grammar({"const": 7}))
    held = hook([], torch.zeros(640, device="cuda"))
    assert held.is_cuda
    assert held.isfinite().sum() == 1
