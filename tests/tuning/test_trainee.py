"""The loss of packed samples against transformers' own, with and without skipping."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import LlavaForConditionalGeneration

from skipvision.families import load_family, skipping
from skipvision.method.plan import SkipConfig
from skipvision.tuning import LoraConfig, Run
from skipvision.tuning.encoding import EncodedSample
from skipvision.tuning.packing import PackedSamples, passes
from skipvision.tuning.trainee import Trainee, part_of
from tests.engine.subjects import CARRIED

TOKENS = 16
SETTINGS = {
    "off": SkipConfig(),
    "carried": CARRIED,
    "unmerged": SkipConfig(retain=5, summarise=True),
    "plain": SkipConfig(retain=4, merge_skipped_to=6, forget_skipped=True),
}


@pytest.fixture(params=SETTINGS.values(), ids=SETTINGS.keys())
def skip(request: pytest.FixtureRequest) -> SkipConfig:
    config: SkipConfig = request.param
    return config


def encoded(prepare: Callable[..., Run], skip: SkipConfig) -> list[EncodedSample]:
    """Conversations with one turn and two, with an image and without."""
    encoder = prepare().encoder
    samples = [
        type(encoder)(**{n: getattr(encoder, n) for n in encoder.__slots__} | {"skip": skip})(at) for at in range(6)
    ]
    assert all(isinstance(sample, EncodedSample) for sample in samples)
    return samples  # type: ignore[return-value]


def trainee_of(checkpoint: Path, skip: SkipConfig, **changes: object) -> Trainee:
    torch.manual_seed(0)
    family = load_family(checkpoint, device="cpu", dtype="float32")
    return Trainee(family, skip, **{"learning": ("projector", "decoder")} | changes).train()  # type: ignore[arg-type]


def loss_of(trainee: Trainee, samples: Sequence[EncodedSample], *, forgetting: bool = False) -> Tensor:
    loss: Tensor = trainee(PackedSamples.of(samples, forgetting=forgetting))
    return loss


def stock_inputs(sample: EncodedSample, image_token: int) -> tuple[Tensor, Tensor]:
    """Input ids with placeholders, and -100 wherever nothing is to be said."""
    ids, labels, done = [], [], 0
    for offset in (*sample.image_offsets, len(sample.text_ids)):
        ids += sample.text_ids[done:offset].tolist()
        labels += np.where(sample.is_answer[done:offset], sample.text_ids[done:offset], -100).tolist()
        if offset < len(sample.text_ids):
            ids += [image_token] * TOKENS
            labels += [-100] * TOKENS
        done = offset
    return torch.tensor([ids]), torch.tensor(labels)


def reference_loss(trainee: Trainee, sample: EncodedSample) -> Tensor:
    """Of one sample, through transformers' model with the live patch."""
    model: LlavaForConditionalGeneration = trainee.model
    model.model.language_model.set_attn_implementation("sdpa")
    ids, labels = stock_inputs(sample, model.config.image_token_id)
    pixels = None
    if sample.pixels:
        family = trainee._family
        pixels = torch.from_numpy(np.stack(sample.pixels)).float() * family._scale + family._shift  # type: ignore[attr-defined]
    with skipping(model, trainee.skip, trainee.summary):
        logits = model(input_ids=ids, pixel_values=pixels).logits[0]
    model.model.language_model.set_attn_implementation("skipvision_packed")
    return cross_entropy(logits[:-1], labels[1:], reduction="sum")


def test_the_loss_is_the_one_of_transformers_model(
    prepare: Callable[..., Run], checkpoint: Path, skip: SkipConfig
) -> None:
    samples, trainee = encoded(prepare, skip), trainee_of(checkpoint, skip)
    for sample in samples:
        with trainee.skipping():
            ours = loss_of(trainee, [sample])
        torch.testing.assert_close(ours, reference_loss(trainee, sample), rtol=1e-5, atol=1e-5)


def test_samples_learn_nothing_from_their_company(
    prepare: Callable[..., Run], checkpoint: Path, skip: SkipConfig
) -> None:
    samples, trainee = encoded(prepare, skip), trainee_of(checkpoint, skip)
    gradients = []
    for packs in ([samples], [[sample] for sample in samples], [samples[:2], samples[2:]]):
        trainee.zero_grad()
        with trainee.skipping():
            for pack in packs:
                loss_of(trainee, pack).backward()
        gradients.append({name: p.grad.clone() for name, p in trainee.learnable().items() if p.grad is not None})
    for other in gradients[1:]:
        assert other.keys() == gradients[0].keys() == trainee.learnable().keys()
        for name, gradient in gradients[0].items():
            torch.testing.assert_close(other[name], gradient, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("forgetting", [False, True])
def test_activation_checkpointing_changes_no_gradient(
    prepare: Callable[..., Run], checkpoint: Path, forgetting: bool
) -> None:
    samples = encoded(prepare, CARRIED)
    gradients = []
    for checkpointing in (False, True):
        trainee = trainee_of(checkpoint, CARRIED)
        if checkpointing:
            trainee.model.activation_checkpointing_enable(activation_checkpointing_kwargs={"use_reentrant": False})
        with trainee.skipping():
            loss_of(trainee, samples, forgetting=forgetting).backward()
        gradients.append([p.grad for p in trainee.learnable().values()])
    for plain, checkpointed in zip(*gradients, strict=True):
        torch.testing.assert_close(checkpointed, plain)


def test_forgetting_teaches_what_decoding_sees(prepare: Callable[..., Run], checkpoint: Path) -> None:
    """Of a prompt with its answer: the prefill says the first token, and the others follow on the shortened cache."""
    trainee = trainee_of(checkpoint, CARRIED)
    sample = encoded(prepare, CARRIED)[1]
    with trainee.skipping():
        ours, unforgetting = (loss_of(trainee, [sample], forgetting=forgetting) for forgetting in (True, False))
    ids, labels = stock_inputs(sample, trainee.model.config.image_token_id)
    start = int((labels >= 0).nonzero()[0])
    family = trainee._family
    pixels = torch.from_numpy(np.stack(sample.pixels)).float() * family._scale + family._shift  # type: ignore[attr-defined]
    trainee.model.model.language_model.set_attn_implementation("sdpa")
    with skipping(trainee.model, CARRIED, trainee.summary), torch.no_grad():
        read = trainee.model(input_ids=ids[:, :start], pixel_values=pixels, use_cache=True)
        more = trainee.model(input_ids=ids[:, start:-1], past_key_values=read.past_key_values)
    logits = torch.cat([read.logits[0, -1:], more.logits[0]])
    torch.testing.assert_close(ours, cross_entropy(logits, labels[start:], reduction="sum"), rtol=1e-5, atol=1e-5)
    assert abs(ours - unforgetting) > 1e-4


def test_only_what_learns_gets_gradients(prepare: Callable[..., Run], checkpoint: Path) -> None:
    samples = encoded(prepare, CARRIED)
    for learning, expected in ((("projector",), {"projector"}), (("tower", "decoder"), {"tower", "decoder"})):
        trainee = trainee_of(checkpoint, CARRIED, learning=learning)
        with trainee.skipping():
            loss_of(trainee, samples).backward()
        moved = {name for name, p in trainee.named_parameters() if p.grad is not None}
        assert {part_of(name) for name in moved if not name.startswith("summary.")} == expected
        assert {name for name in moved if name.startswith("summary.")}


def test_adapters_start_as_nothing_and_are_all_of_the_decoder_that_learns(
    prepare: Callable[..., Run], checkpoint: Path
) -> None:
    samples = encoded(prepare, CARRIED)
    plain, adapted = trainee_of(checkpoint, CARRIED), trainee_of(checkpoint, CARRIED, lora=LoraConfig(rank=4))
    with plain.skipping(), adapted.skipping():
        torch.testing.assert_close(loss_of(adapted, samples), loss_of(plain, samples))
    decoder = {name for name in adapted.learnable() if part_of(name) == "decoder" and not name.startswith("summary.")}
    assert decoder
    assert all("lora_" in name for name in decoder)
    assert len(decoder) == 2 * 7 * len(adapted.layers)


def test_skipped_tokens_are_refused_outside_skipping(prepare: Callable[..., Run], checkpoint: Path) -> None:
    with pytest.raises(RuntimeError, match=r"inside skipping\(\)"):
        loss_of(trainee_of(checkpoint, CARRIED), encoded(prepare, CARRIED))


def test_a_step_is_cut_into_passes_that_fit(prepare: Callable[..., Run]) -> None:
    samples = encoded(prepare, CARRIED)
    longest = max(sample.plan.prompt_tokens for sample in samples)
    for most in (1, longest, 2 * longest, 10_000):
        cut = [*passes(samples, most_tokens=most)]
        assert [sample for some in cut for sample in some] == samples
        assert all(len(some) == 1 or sum(s.plan.prompt_tokens for s in some) <= most for some in cut)
    assert [len(some) for some in passes(samples, most_tokens=10_000)] == [6]
