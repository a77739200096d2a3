"""Structured output: answers that can only be JSON, and only of the schema that their request brings.

`json_grammar` reads a caller's schema, at the door and without a model; `Grammars` makes the hooks that hold answers
to it. Both stand on llguidance, which comes with `skipvision[serve]`.
"""

from skipvision.engine.grammar.hook import GrammarHook, Grammars
from skipvision.engine.grammar.json_schema import json_grammar

__all__ = ["GrammarHook", "Grammars", "json_grammar"]
