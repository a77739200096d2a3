"""Keys and values of skipped tokens, gone from a cache."""

from __future__ import annotations

import torch
from transformers import DynamicCache

from skipvision.method.kv_removal import keep_only
from skipvision.method.skip_ffn import FfnRows, skipping_ffn
from tests.method import reference
from tests.method.bare_llava import bare_llava

TOKENS = 12
SKIPPED = frozenset({3, 4, 5, 9})
KEPT = torch.tensor([i for i in range(TOKENS) if i not in SKIPPED])


def filled_cache(batch: int = 2) -> DynamicCache:
    cache = DynamicCache()
    for layer in range(3):
        keys = torch.randn(batch, 2, TOKENS, 16, generator=torch.Generator().manual_seed(layer))
        cache.update(keys, -keys, layer)
    return cache


def test_only_the_kept_columns_are_left_in_their_order() -> None:
    cache, before = filled_cache(), filled_cache()
    keep_only(cache.layers, KEPT.expand(2, -1))
    assert cache.get_seq_length() == len(KEPT)
    for layer, old in zip(cache.layers, before.layers, strict=True):
        assert torch.equal(layer.keys, old.keys[:, :, KEPT])
        assert torch.equal(layer.values, old.values[:, :, KEPT])


def test_every_sequence_keeps_columns_of_its_own() -> None:
    cache, before = filled_cache(), filled_cache()
    keep_only(cache.layers, torch.tensor([[0, 1, 5], [2, 7, 11]]))
    assert torch.equal(cache.layers[1].keys[0], before.layers[1].keys[0, :, [0, 1, 5]])
    assert torch.equal(cache.layers[1].values[1], before.layers[1].values[1, :, [2, 7, 11]])


def test_the_memory_is_really_given_back() -> None:
    cache = filled_cache()
    keep_only(cache.layers, KEPT.expand(2, -1))
    held = sum(t.untyped_storage().nbytes() for layer in cache.layers for t in (layer.keys, layer.values))
    assert held == 3 * 2 * 2 * 2 * len(KEPT) * 16 * 4  # layers, keys and values, batch, heads, columns, dim, float32


@torch.no_grad()
def test_decoding_from_the_compacted_cache_equals_decoding_under_a_mask_token_by_token() -> None:
    model = bare_llava()
    decoder, embeds = model.model.language_model, torch.randn(1, TOKENS, 48)
    prompt = reference.Prompt(embeds[0], SKIPPED, [None] * TOKENS)
    tokens, chosen_from = reference.PlainDecoder(model).greedy_under_a_mask(prompt, 6)

    cache = DynamicCache(config=model.config.text_config)
    with skipping_ffn(decoder.layers, FfnRows(KEPT)):
        decoder(inputs_embeds=embeds, past_key_values=cache, use_cache=True)
    keep_only(cache.layers, KEPT[None])

    for step, token in enumerate(tokens[:-1]):
        out = decoder(
            input_ids=torch.tensor([[token]]),
            position_ids=torch.tensor([[TOKENS + step]]),
            past_key_values=cache,
            use_cache=True,
        )
        logits = model.lm_head(out.last_hidden_state[0, -1])
        torch.testing.assert_close(logits, chosen_from[step + 1], rtol=1e-4, atol=1e-4)
    assert cache.get_seq_length() == len(KEPT) + len(tokens) - 1
