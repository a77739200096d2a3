"""`with skipping(model, config)` on a live LLaVA, against the plain reference and the stock model."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from skipvision.families.patch import skipping
from skipvision.method.plan import SkipConfig
from skipvision.method.summary import SummaryPooling
from tests.families.patch_cases import (
    CLOSE,
    CONFIGS,
    FULL,
    IMAGE,
    MIXED,
    as_batch,
    every_config,
    expected,
    greedy,
    in_order_of_ids,
    nothing_skipped,
    one_image_prompt,
)
from tests.method import reference
from tests.method.bare_llava import IMAGE_TOKEN, bare_llava, left_padded, random_images, words


@nothing_skipped
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@torch.no_grad()
def test_with_nothing_skipped_logits_are_the_stock_models_bit_for_bit(config: SkipConfig, attention: str) -> None:
    model = bare_llava(attention=attention)
    given = {"input_ids": as_batch(one_image_prompt()), "pixel_values": random_images(1)}
    plain = model(**given).logits
    with skipping(model, config):
        changed = model(**given).logits
    text = given["input_ids"][0] != IMAGE_TOKEN
    assert torch.equal(changed[0, text], plain[0, text])
    assert torch.equal(model(**given).logits, plain), "the model must come back as it was"


@nothing_skipped
@torch.no_grad()
def test_with_nothing_skipped_a_padded_batch_is_generated_bit_for_bit(model: Any, config: SkipConfig) -> None:
    ids, mask = left_padded(one_image_prompt(), words(1, seed=3) + IMAGE + words(2, seed=4))
    pixels = random_images(2)
    plain_tokens, plain_logits = greedy(model, ids, pixels, attention_mask=mask)
    with skipping(model, config):
        tokens, logits = greedy(model, ids, pixels, attention_mask=mask)
    assert torch.equal(tokens, plain_tokens)
    assert torch.equal(logits, plain_logits)


@every_config
@torch.no_grad()
def test_one_sequence_equals_two_streams_that_share_only_keys_and_values(
    model: Any, summary: SummaryPooling, config: SkipConfig
) -> None:
    ids, pixels = one_image_prompt(), random_images(1)
    prompt = expected(model, ids, pixels, config, summary)
    plain = in_order_of_ids(prompt, reference.TwoStreams(model).read_prompt(prompt))
    with skipping(model, config, summary):
        logits = model(input_ids=as_batch(ids), pixel_values=pixels).logits[0]
    assert len(logits) == len(ids)
    torch.testing.assert_close(logits[list(plain)], torch.stack(list(plain.values())), **CLOSE)


@every_config
@torch.no_grad()
def test_with_ffns_of_zero_it_is_the_stock_decoder_on_the_reordered_sequence(
    summary: SummaryPooling, config: SkipConfig
) -> None:
    model, ids, pixels = bare_llava(), one_image_prompt(), random_images(1)
    for layer in model.model.language_model.layers:
        torch.nn.init.zeros_(layer.mlp.down_proj.weight)
    prompt = expected(model, ids, pixels, config, summary)
    hidden = model.model.language_model(inputs_embeds=prompt.rows[None], use_cache=False).last_hidden_state[0]
    plain = in_order_of_ids(prompt, model.lm_head(hidden[prompt.kept]))
    with skipping(model, config, summary):
        logits = model(input_ids=as_batch(ids), pixel_values=pixels).logits[0]
    torch.testing.assert_close(logits[list(plain)], torch.stack(list(plain.values())), **CLOSE)


@pytest.mark.parametrize("name", ["6/8", "6/8:plain", "6/rest", "24/1"])
@torch.no_grad()
def test_decoding_from_the_compacted_cache_equals_decoding_under_a_mask(
    model: Any, summary: SummaryPooling, name: str
) -> None:
    config, ids, pixels = CONFIGS[name], one_image_prompt(), random_images(1)
    prompt = expected(model, ids, pixels, config, summary)
    masked, masked_logits = reference.PlainDecoder(model).greedy_under_a_mask(prompt, 7)
    with skipping(model, config, summary):
        tokens, logits = greedy(model, as_batch(ids), pixels)
    assert tokens[0].tolist() == masked
    torch.testing.assert_close(logits[0], masked_logits, **CLOSE)


@torch.no_grad()
def test_without_forgetting_every_step_still_sees_the_skipped_tokens(model: Any, summary: SummaryPooling) -> None:
    config, ids, pixels = CONFIGS["6/8 with skipped keys and values kept"], one_image_prompt(), random_images(1)
    prompt = expected(model, ids, pixels, config, summary)
    with skipping(model, config, summary):
        tokens, logits = greedy(model, as_batch(ids), pixels)
        forgetful = expected(model, ids, pixels, FULL, summary)
    rows = torch.cat([prompt.rows, model.get_input_embeddings()(tokens[0, :-1])])
    plain = reference.PlainDecoder(model).read(rows, prompt.skipped, lambda row, column: column <= row)
    torch.testing.assert_close(logits[0], plain[len(prompt.rows) - 1 :], **CLOSE)
    masked = reference.PlainDecoder(model).greedy_under_a_mask(forgetful, 2)[1]
    assert not torch.allclose(logits[0, 1], masked[1], **CLOSE), "the skipped tokens must matter in this test"


@pytest.mark.parametrize("name", ["6/8", "6/rest", "24/1"])
def test_training_loss_is_that_over_the_kept_positions(model: Any, summary: SummaryPooling, name: str) -> None:
    config, ids, pixels = CONFIGS[name], one_image_prompt(), random_images(1)
    labels = [-100 if token == IMAGE_TOKEN else token for token in ids]
    prompt = expected(model, ids, pixels, config, summary)
    plain = reference.loss_over_kept(prompt, reference.TwoStreams(model).read_prompt(prompt), labels)
    with skipping(model, config, summary):
        loss = model(input_ids=as_batch(ids), pixel_values=pixels, labels=as_batch(labels)).loss
    torch.testing.assert_close(loss, plain, **CLOSE)


def test_training_loss_over_kept_positions_equals_loss_over_all_with_the_skipped_labels_ignored(
    model: Any, summary: SummaryPooling
) -> None:
    ids, pixels = one_image_prompt(), random_images(1)
    labels = [-100 if token == IMAGE_TOKEN else token for token in ids]
    prompt = expected(model, ids, pixels, FULL, summary)
    everywhere = reference.PlainDecoder(model).read_prompt(prompt)
    in_place = torch.tensor([-100 if index is None else labels[index] for index in prompt.id_index])
    over_all = torch.nn.functional.cross_entropy(everywhere[:-1], in_place[1:], ignore_index=-100)
    with skipping(model, FULL, summary):
        loss = model(input_ids=as_batch(ids), pixel_values=pixels, labels=as_batch(labels)).loss
    torch.testing.assert_close(loss, over_all, **CLOSE)


@every_config
@torch.no_grad()
def test_a_mixed_batch_gives_what_each_prompt_gives_alone(
    model: Any, summary: SummaryPooling, config: SkipConfig
) -> None:
    pixels = random_images(sum(images for _, images in MIXED.values()))
    ids, mask = left_padded(*(prompt for prompt, _ in MIXED.values()))
    with skipping(model, config, summary):
        together, together_logits = greedy(model, ids, pixels, attention_mask=mask)
        for row, (prompt, images) in enumerate(MIXED.values()):
            own, pixels = (pixels[:images], pixels[images:]) if images else (None, pixels)
            alone, alone_logits = greedy(model, as_batch(prompt), own)
            assert together[row].tolist() == alone[0].tolist()
            torch.testing.assert_close(together_logits[row], alone_logits[0], **CLOSE)


@pytest.mark.parametrize("name", MIXED)
@torch.no_grad()
def test_every_kind_of_prompt_is_generated_as_the_reference_generates_it(
    model: Any, summary: SummaryPooling, name: str
) -> None:
    ids, images = MIXED[name]
    pixels = random_images(images) if images else None
    plain, plain_logits = reference.TwoStreams(model).greedy(expected(model, ids, pixels, FULL, summary), 6)
    with skipping(model, FULL, summary):
        tokens, logits = greedy(model, as_batch(ids), pixels, num_tokens=6)
    assert tokens[0].tolist() == plain
    torch.testing.assert_close(logits[0], plain_logits, **CLOSE)


@torch.no_grad()
def test_the_side_of_the_padding_does_not_matter(model: Any, summary: SummaryPooling) -> None:
    long, short = one_image_prompt(), IMAGE + words(2, seed=3)
    padding, pixels = len(long) - len(short), random_images(2)
    right = torch.tensor([long, short + [0] * padding])
    mask = torch.tensor([[1] * len(long), [1] * len(short) + [0] * padding])
    left, left_mask = left_padded(long, short)
    with skipping(model, FULL, summary):
        right_logits = model(input_ids=right, attention_mask=mask, pixel_values=pixels).logits
        left_logits = model(input_ids=left, attention_mask=left_mask, pixel_values=pixels).logits
    torch.testing.assert_close(right_logits[0], left_logits[0], **CLOSE)
    torch.testing.assert_close(right_logits[1, : len(short)], left_logits[1, padding:], **CLOSE)


@torch.no_grad()
def test_a_text_only_prompt_is_the_stock_models_bit_for_bit(model: Any, summary: SummaryPooling) -> None:
    ids = as_batch(words(8, seed=1))
    tokens, logits = greedy(model, ids, None)
    with skipping(model, FULL, summary):
        skipping_tokens, skipping_logits = greedy(model, ids, None)
    assert torch.equal(tokens, skipping_tokens)
    assert torch.equal(logits, skipping_logits)


@torch.no_grad()
def test_beams_of_a_batch_are_those_of_each_prompt_alone(model: Any, summary: SummaryPooling) -> None:
    prompts, pixels = (one_image_prompt(), IMAGE + words(2, seed=3)), random_images(2)
    ids, mask = left_padded(*prompts)
    search = {"max_new_tokens": 6, "num_beams": 3, "do_sample": False}
    with skipping(model, FULL, summary):
        together = model.generate(input_ids=ids, attention_mask=mask, pixel_values=pixels, **search)
        for row, prompt in enumerate(prompts):
            alone = model.generate(input_ids=as_batch(prompt), pixel_values=pixels[row : row + 1], **search)
            assert together[row, ids.shape[1] :].tolist() == alone[0, len(prompt) :].tolist()
