"""Engines in processes of their own, which answer on demand: nobody's allocator or threads touch another's.

`process` is the side that asks, `serve` the side that answers; `ours`, `stock` and `vllm` are engines.
"""
