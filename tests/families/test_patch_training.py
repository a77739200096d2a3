"""Training inside `with skipping(...)`: losses and gradients."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from skipvision.families.patch import skipping
from skipvision.method.summary import SummaryPooling
from tests.families.patch_cases import (
    CLOSE,
    FULL,
    IMAGE,
    as_batch,
    expected,
    one_image_prompt,
)
from tests.method import reference
from tests.method.bare_llava import IMAGE_TOKEN, bare_llava, left_padded, random_images, words


def test_gradients_are_those_of_the_plain_steps_and_reach_the_summary_module(
    model: Any, summary: SummaryPooling
) -> None:
    ids, pixels = one_image_prompt(), random_images(1)
    labels = [-100 if token == IMAGE_TOKEN else token for token in ids]
    learned = {**dict(model.model.multi_modal_projector.named_parameters()), **dict(summary.named_parameters())}
    learned |= dict(model.model.language_model.layers[0].named_parameters())

    prompt = expected(model, ids, pixels, FULL, summary)
    plain_loss = reference.loss_over_kept(prompt, reference.TwoStreams(model).read_prompt(prompt), labels)
    plain = torch.autograd.grad(plain_loss, list(learned.values()))
    with skipping(model, FULL, summary):
        loss = model(input_ids=as_batch(ids), pixel_values=pixels, labels=as_batch(labels)).loss
        fast = torch.autograd.grad(loss, list(learned.values()))

    for name, gradient, expected_gradient in zip(learned, fast, plain, strict=True):
        torch.testing.assert_close(gradient, expected_gradient, **CLOSE, msg=lambda text, name=name: f"{name}: {text}")
    by_name = dict(zip(learned, fast, strict=True))
    assert by_name["score.weight"].abs().max() > 1e-4
    assert by_name["linear_2.weight"].abs().max() > 1e-4


def test_activation_checkpointing_changes_no_gradient(summary: SummaryPooling) -> None:
    prompts, model = (one_image_prompt(), IMAGE + words(2, seed=3)), bare_llava().train()

    def gradients() -> dict[str, Tensor]:
        model.zero_grad()
        with skipping(model, FULL, summary):
            losses = []  # two passes before one backward: each recomputes its own rows
            for prompt in prompts:
                ids = as_batch(prompt)
                labels = ids.masked_fill(ids == IMAGE_TOKEN, -100)
                given = {"input_ids": ids, "pixel_values": random_images(1), "labels": labels}
                losses.append(model(**given, use_cache=False).loss)
            sum(losses).backward()
        return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}

    plain = gradients()
    model.activation_checkpointing_enable()
    checkpointed = gradients()
    assert checkpointed.keys() == plain.keys()
    for name, gradient in checkpointed.items():
        torch.testing.assert_close(gradient, plain[name], **CLOSE)


def test_a_frozen_encoder_and_a_padded_batch_train_as_each_prompt_alone(model: Any, summary: SummaryPooling) -> None:
    prompts, pixels = (one_image_prompt(), IMAGE + words(2, seed=3)), random_images(2)
    ids, mask = left_padded(*prompts)
    labels = ids.masked_fill((ids == IMAGE_TOKEN) | (mask == 0), -100)
    with skipping(model, FULL, summary):
        together = model(input_ids=ids, attention_mask=mask, pixel_values=pixels, labels=labels).loss
        total, count = 0.0, 0
        for row, prompt in enumerate(prompts):
            own = as_batch(prompt)
            own_labels = own.masked_fill(own == IMAGE_TOKEN, -100)
            targets = int((own_labels[:, 1:] != -100).sum())
            loss = model(input_ids=own, pixel_values=pixels[row : row + 1], labels=own_labels).loss
            total, count = total + loss * targets, count + targets
    torch.testing.assert_close(together, total / count, **CLOSE)
