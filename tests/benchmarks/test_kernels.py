"""Each form is measured beside the one it replaced."""

from __future__ import annotations

from benchmarks import tables
from benchmarks.kernels import compare_attention, compare_linears, compare_trunk
from benchmarks.machine import circumstances
from skipvision.method.flops import DecoderShape

SHAPE = DecoderShape(hidden=32, ffn_hidden=48, layers=2, heads=4, kv_heads=2, head_dim=8, vocab=50)


def test_the_table_has_a_row_for_every_comparison_with_its_ratio():
    result = {
        **circumstances(),
        "rounds": 2,
        "linear": [compare_linears(SHAPE, 4, 2)],
        "decode_attention": [compare_attention(SHAPE, 2, 40, rounds=2)],
        "trunk_attention": [compare_trunk(SHAPE, 2, 60, rounds=2)],
    }
    result["linear"][0] |= {"input_by_weight_seconds": {"median": 0.006}, "weight_by_input_seconds": {"median": 0.003}}
    rows = [line.strip("| ").split(" | ") for line in tables.kernels(result).splitlines()[2:5]]
    assert [row[0] for row in rows] == [
        "linear layers, 4 rows",
        "attention, 2 caches of 40 tokens",
        "attention, 2 forks of one cache of 60 tokens",
    ]
    assert rows[0][1:4] == ["6.0", "3.0", "2.00"]
