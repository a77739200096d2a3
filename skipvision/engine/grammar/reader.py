"""Reads a schema keyword by keyword, within limits, and keeps what constrains."""

from __future__ import annotations

import math
from collections.abc import Mapping
from decimal import Decimal
from typing import Any
from urllib.parse import quote, unquote

from skipvision.errors import InputError

MOST_CHARACTERS = 65_536
MOST_PARTS = 2_000
MOST_DEPTH = 64
# Each property that may be left out is one more way on from every one before it: 2,000 of them took 36 seconds.
MOST_PROPERTIES = 500
# Whether strings of several patterns exist is searched for, which doubles with each pattern.
MOST_JOINED_PATTERNS = 8
# A multiple of n is recognised by n states, which take 0.1 seconds for 10,000 and two seconds for 100,000.
MOST_DIVISORS = 10_000

# fmt: off
_NOTES = frozenset([
    "$schema", "$id", "$comment", "title", "description", "default", "examples", "example", "deprecated", "readOnly",
    "writeOnly",
])
_COUNTS = frozenset(["minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties"])
_VALUES = _COUNTS | frozenset([
    "type", "const", "enum", "required", "pattern", "format", "minimum", "maximum", "exclusiveMinimum",
    "exclusiveMaximum", "multipleOf",
])
# fmt: on
_ONE = frozenset(["items", "additionalProperties"])
_SEVERAL = frozenset(["anyOf", "oneOf", "allOf", "prefixItems"])
_NAMED = frozenset(["properties", "patternProperties", "$defs", "definitions"])
_JOINING = frozenset(["$ref", "anyOf", "oneOf"])
"""Keywords that are joined to whatever stands beside them."""
_APART = frozenset(["$defs", "definitions"])
_REMEDIES = {
    "not": "say what is allowed instead",
    "nullable": 'add "null" to its type',
    "id": "leave it out, and refer to parts by #/…",
    "additionalItems": "use prefixItems and items",
}


def refusal(place: str, fault: str) -> InputError:
    """What is wrong with the part of a schema at `place`."""
    return InputError(f"the schema at {place[:200]} {fault}", code="schema_invalid")


def pointer(place: str, *names: str) -> str:
    """A JSON pointer, in a URL's spelling, to something inside of `place`."""
    return "/".join([place, *(quote(name.replace("~", "~0").replace("/", "~1"), safe="~$") for name in names)])


class SchemaReader:
    """Reads one document. What it read is a schema that constrains the same, without notes for people."""

    def __init__(self) -> None:
        self.schemas: dict[str, Any] = {}
        """What was read by its place, parents first; references are spelt as those places."""
        self._characters, self._parts, self._properties = 0, 0, 0
        self._patterns, self._divisors, self._joins = 0, 0, False

    def read(self, schema: Any) -> dict[str, Any]:
        """The whole document.

        Raises:
            InputError: `schema_invalid`, with the place.
        """
        if not isinstance(schema, Mapping):
            raise refusal("#", f"must be an object; got {type(schema).__name__}")
        read: dict[str, Any] = self._schema(schema, "#", 0)
        self._check_joined()
        return read

    def check_references(self) -> None:
        """Refuse what points to no schema of the document: llguidance would read plain values as schemas.

        Raises:
            InputError: `schema_invalid`, with the place.
        """
        for place, schema in self.schemas.items():
            if isinstance(schema, dict) and "$ref" in schema and schema["$ref"] not in self.schemas:
                raise refusal(place, "refers to what is no schema in it; refer to one by $ref: #/$defs/…")

    def _schema(self, schema: Any, place: str, depth: int) -> Any:
        self._count(place, depth)
        if isinstance(schema, bool):
            self.schemas[place] = schema
            return schema
        if not isinstance(schema, Mapping):
            raise refusal(place, f"must be an object, true or false; got {type(schema).__name__}")
        read: dict[str, Any] = {}
        self.schemas[place] = read
        for word, value in schema.items():
            if word in _NOTES:
                continue
            self._text(word, place)
            read[word] = self._keyword(word, value, place, depth + 1)
        joined = _JOINING & read.keys()
        self._joins |= "allOf" in read or bool(joined and len(read.keys() - _APART) > 1)
        self._patterns += ("pattern" in read) + ("format" in read)
        return read

    def _keyword(self, word: str, value: Any, place: str, depth: int) -> Any:
        inside = pointer(place, word)
        if word in _ONE:
            return self._schema(value, inside, depth)
        if word in _SEVERAL:
            if not isinstance(value, list | tuple) or not value:
                raise refusal(inside, "must be a list of schemas, and not empty")
            return [self._schema(each, f"{inside}/{at}", depth + 1) for at, each in enumerate(value)]
        if word in _NAMED:
            return self._named(word, value, inside, depth)
        if word == "$ref":
            return self._reference(value, inside)
        if word not in _VALUES:
            remedy = _REMEDIES.get(word, "leave it out")
            raise refusal(place, f"has the keyword {word[:100]!r}, which is not supported; {remedy}")
        read = self._value(value, inside, depth)
        self._check_value(word, read, inside)
        return read

    def _named(self, word: str, value: Any, place: str, depth: int) -> dict[str, Any]:
        if not isinstance(value, Mapping):
            raise refusal(place, f"must be an object of schemas; got {type(value).__name__}")
        self._properties += len(value) if word == "properties" else 0
        if self._properties > MOST_PROPERTIES:
            raise refusal(place, f"brings the properties to more than {MOST_PROPERTIES}; ask for fewer at a time")
        if word == "patternProperties" and value:
            # Whether two patterns name the same property is searched for as well.
            self._patterns, self._joins = self._patterns + len(value), True
        read = {}
        for name, each in value.items():
            self._text(name, place)
            read[name] = self._schema(each, pointer(place, name), depth + 1)
        return read

    def _reference(self, value: Any, place: str) -> str:
        if not isinstance(value, str) or not (value == "#" or value.startswith("#/")):
            raise refusal(place, "must be a reference inside the schema, as #/$defs/…; others are not followed")
        self._text(value, place)
        names = [unquote(name).replace("~1", "/").replace("~0", "~") for name in value.split("/")[1:]]
        return pointer("#", *names) if names else "#"

    def _value(self, value: Any, place: str, depth: int) -> Any:
        """A plain JSON value."""
        self._count(place, depth)
        if isinstance(value, str):
            self._text(value, place)
        elif isinstance(value, Mapping):
            for name in value:
                self._text(name, place)
            return {name: self._value(each, place, depth + 1) for name, each in value.items()}
        elif isinstance(value, list | tuple):
            return [self._value(each, place, depth + 1) for each in value]
        elif isinstance(value, float):
            _check_float(value, place)
        elif isinstance(value, int) and not isinstance(value, bool) and abs(value) > 2**53:
            raise refusal(place, "holds a whole number above 2**53, which is not exact in JSON; use a string")
        elif value is not None and not isinstance(value, bool | int):
            raise refusal(place, f"holds a {type(value).__name__}, which is no JSON")
        return value

    def _check_value(self, word: str, value: Any, place: str) -> None:
        is_count = isinstance(value, int) and not isinstance(value, bool) and value >= 0
        if word in _COUNTS and not is_count:
            raise refusal(place, "must be a whole number from 0 up")
        if word == "minProperties" and value > 1:
            # llguidance counts a name that comes twice as two.
            raise refusal(place, "must be 0 or 1; to want more, name them under required")
        if word == "required" and not (isinstance(value, list) and all(isinstance(name, str) for name in value)):
            raise refusal(place, "must be a list of names")
        if word == "enum" and not (isinstance(value, list) and value):
            raise refusal(place, "must be a list of values, and not empty")
        if word == "multipleOf":
            if not isinstance(value, int | float) or isinstance(value, bool) or value <= 0:
                raise refusal(place, "must be a number above 0")
            self._divisors += _divisors(value)
            if self._divisors > MOST_DIVISORS:
                raise refusal(place, f"is too large, or one too many: all together may come to {MOST_DIVISORS}")

    def _check_joined(self) -> None:
        if self._joins and self._patterns > MOST_JOINED_PATTERNS:
            raise refusal(
                "#",
                f"has more than {MOST_JOINED_PATTERNS} patterns and formats, some of which it joins (by allOf, "
                "patternProperties, or beside $ref, anyOf or oneOf); use fewer, or do not join them",
            )
        divided = sum(isinstance(schema, dict) and "multipleOf" in schema for schema in self.schemas.values())
        if self._joins and divided > 1:
            raise refusal("#", "has several multipleOf, and joins constraints; use one, or do not join them")

    def _count(self, place: str, depth: int) -> None:
        self._parts += 1
        if self._parts > MOST_PARTS:
            raise refusal("#", f"has more than {MOST_PARTS} parts (schemas and values); ask for less at a time")
        if depth > MOST_DEPTH:
            raise refusal(place, f"is nested more than {MOST_DEPTH} deep; flatten it, or use $ref")

    def _text(self, text: Any, place: str) -> None:
        if not isinstance(text, str):
            raise refusal(place, f"has a name that is no text but {type(text).__name__}")
        self._characters += len(text)
        if self._characters > MOST_CHARACTERS:
            raise refusal("#", f"has more than {MOST_CHARACTERS} characters, notes left aside; shorten it")
        if any("\ud800" <= character <= "\udfff" for character in text):
            raise refusal(place, "holds half of a character (a lone surrogate); send valid Unicode")


def _check_float(value: float, place: str) -> None:
    """Refuse what llguidance reads as the number beside it: more than 15 digits, and powers beyond 10**22."""
    if not math.isfinite(value):
        raise refusal(place, f"holds {value}, which is no JSON")
    _, digits, exponent = Decimal(repr(value)).normalize().as_tuple()
    assert isinstance(exponent, int)
    if len(digits) > 15 or abs(exponent) > 22:
        raise refusal(place, f"holds {value!r}, a number of more than 15 digits, or of too many zeros; round it")


def _divisors(value: float) -> int:
    """How many states tell multiples of `value`: 25 for 25 and for 0.25."""
    _, digits, exponent = Decimal(repr(value)).normalize().as_tuple()
    assert isinstance(exponent, int)
    shift: int = 10 ** max(0, exponent)
    return int("".join(map(str, digits))) * shift
