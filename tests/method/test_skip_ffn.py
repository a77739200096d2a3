"""Skip-FFN on the layers of a stock decoder."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from skipvision.method.skip_ffn import FfnRows, SkipFFN, skipping_ffn
from tests.method import reference
from tests.method.bare_llava import bare_llava

TOKENS = 12
SKIPPED = frozenset({3, 4, 5, 9})
KEPT = torch.tensor([i for i in range(TOKENS) if i not in SKIPPED])


def rows_of_tokens(batch: int = 1) -> Tensor:
    return torch.randn(batch, TOKENS, 48, generator=torch.Generator().manual_seed(2))


@torch.no_grad()
def test_kept_rows_come_out_as_if_the_skipped_stream_were_kept_apart() -> None:
    model, embeds = bare_llava(), rows_of_tokens()
    prompt = reference.Prompt(embeds[0], SKIPPED, [None] * TOKENS)
    with skipping_ffn(model.model.language_model.layers, FfnRows(KEPT)):
        hidden = model.model.language_model(inputs_embeds=embeds, use_cache=False).last_hidden_state
    two_streams = reference.TwoStreams(model).read_prompt(prompt)
    torch.testing.assert_close(model.lm_head(hidden[0, KEPT]), two_streams, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_skipped_rows_get_nothing_from_the_block_and_kept_rows_all_of_it() -> None:
    block, x = nn.Linear(48, 48), rows_of_tokens()
    out = SkipFFN(block, FfnRows(KEPT))(x)
    assert (out[0, list(SKIPPED)] == 0).all()
    torch.testing.assert_close(out[0, KEPT], block(x)[0, KEPT])


@torch.no_grad()
def test_the_block_never_sees_a_skipped_row() -> None:
    model, seen = bare_llava(), []
    layers = model.model.language_model.layers
    handles = [layer.mlp.register_forward_pre_hook(lambda _, args: seen.append(args[0].shape)) for layer in layers]
    with skipping_ffn(layers, FfnRows(KEPT)):
        model.model.language_model(inputs_embeds=rows_of_tokens(), use_cache=False)
    assert seen == [(len(KEPT), 48)] * len(layers)
    for handle in handles:
        handle.remove()


@torch.no_grad()
def test_rows_are_counted_over_the_flattened_batch() -> None:
    block, x = nn.Linear(48, 48), rows_of_tokens(batch=2)
    rows = torch.cat([KEPT, TOKENS + torch.tensor([0, 1])])
    out = SkipFFN(block, FfnRows(rows))(x)
    torch.testing.assert_close(out[1, :2], block(x[1, :2]))
    assert (out[1, 2:] == 0).all()


@torch.no_grad()
def test_every_row_is_the_stock_decoder_bit_for_bit() -> None:
    decoder, embeds = bare_llava().model.language_model, rows_of_tokens()
    plain = decoder(inputs_embeds=embeds, use_cache=False).last_hidden_state
    with skipping_ffn(decoder.layers, FfnRows(None)):
        assert torch.equal(decoder(inputs_embeds=embeds, use_cache=False).last_hidden_state, plain)


def test_skipped_rows_teach_the_block_nothing() -> None:
    block, x = nn.Linear(48, 48), rows_of_tokens().requires_grad_()
    SkipFFN(block, FfnRows(KEPT))(x).sum().backward()
    skipped_gradient = x.grad[0, list(SKIPPED)]
    assert (skipped_gradient == 0).all()
    torch.testing.assert_close(block.weight.grad, x.detach()[0, KEPT].sum(0).expand(48, -1))


@torch.no_grad()
def test_the_layers_come_back_also_after_an_error() -> None:
    decoder = bare_llava().model.language_model
    before = [layer.mlp for layer in decoder.layers]
    names = list(decoder.state_dict())

    def fail_inside() -> None:
        with skipping_ffn(decoder.layers, FfnRows(KEPT)):
            assert isinstance(decoder.layers[0].mlp, SkipFFN)
            raise RuntimeError("from inside")

    with pytest.raises(RuntimeError, match="from inside"):
        fail_inside()
    assert all(layer.mlp is block for layer, block in zip(decoder.layers, before, strict=True))
    assert list(decoder.state_dict()) == names


@torch.no_grad()
def test_two_models_side_by_side_do_not_disturb_each_other() -> None:
    skipping, stock, embeds = bare_llava().model.language_model, bare_llava().model.language_model, rows_of_tokens()
    plain = stock(inputs_embeds=embeds, use_cache=False).last_hidden_state
    with skipping_ffn(skipping.layers, FfnRows(KEPT)):
        changed = skipping(inputs_embeds=embeds, use_cache=False).last_hidden_state
        assert torch.equal(stock(inputs_embeds=embeds, use_cache=False).last_hidden_state, plain)
    assert not torch.allclose(changed, plain)
