"""Schemas that no finite value satisfies, because they need themselves."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from skipvision.engine.grammar.reader import pointer

_MOST_ROUNDS = 64  # references that lead through more others than that; each round takes about a millisecond


def find_endless(schemas: Mapping[str, Any]) -> str | None:
    """The place of a schema that needs itself, through references or through what it requires; None: there is none.

    It need not be the one at the root: a model led into it could never leave it.

    Args:
        schemas: all of a document by their places, parents first, their references spelt as those places.
    """
    waiting, ends = [*schemas][::-1], set[str]()
    for _ in range(_MOST_ROUNDS):
        before = len(waiting)
        for place in waiting:
            if _ends(place, schemas[place], ends):
                ends.add(place)
        waiting = [place for place in waiting if place not in ends]
        if len(waiting) == before:
            break
    return waiting[-1] if waiting else None


def _ends(place: str, schema: Any, ends: Collection[str]) -> bool:
    """Whether a value of it can be finished, if those of `ends` can."""
    if isinstance(schema, bool):
        return True  # false is satisfied by nothing, which llguidance finds where it matters
    if "$ref" in schema and schema["$ref"] not in ends:
        return False
    for word in ("anyOf", "oneOf"):
        if word in schema and not any(f"{place}/{word}/{at}" in ends for at in range(len(schema[word]))):
            return False
    needed = [f"{place}/allOf/{at}" for at in range(len(schema.get("allOf", ())))]
    least = schema.get("minItems", 0)
    first = schema.get("prefixItems", ())
    needed += [f"{place}/prefixItems/{at}" for at in range(min(len(first), least))]
    if "items" in schema and least > len(first):
        needed.append(f"{place}/items")
    named = schema.get("properties", {})
    needed += [pointer(place, "properties", name) for name in schema.get("required", ()) if name in named]
    return all(each in ends for each in needed)
