"""The engine on NVIDIA GPUs: decoding through block tables, prefill over packed rows, decode steps as CUDA graphs.

Nothing here is imported where there is no such GPU.
"""
