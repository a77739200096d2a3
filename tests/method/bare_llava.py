"""A LLaVA without folder, tokenizer or processor, for tests that speak in ids and normalised pixels.

The real classes, built from configs with random weights.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

IMAGE_TOKEN = 5
PAD_TOKEN = 0
EOS_TOKEN = 2
VOCAB = 97


def bare_llava(
    *, grid: int = 5, attention: str = "eager", seed: int = 0, feature_layer: int = -2
) -> LlavaForConditionalGeneration:
    """A float32 model with `grid` x `grid` visual tokens per image, grouped-query attention and a wide head.

    The weights are larger than a fresh model's, so that attention is not flat and every path shows in the logits.
    """
    torch.manual_seed(seed)
    vision = CLIPVisionConfig(
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=3,
        num_attention_heads=4,
        image_size=8 * grid,
        patch_size=8,
    )
    text = LlamaConfig(
        vocab_size=VOCAB,
        hidden_size=48,
        intermediate_size=80,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
        max_position_embeddings=512,
        bos_token_id=1,
        eos_token_id=EOS_TOKEN,
        pad_token_id=PAD_TOKEN,
    )
    config = LlavaConfig(
        vision_config=vision,
        text_config=text,
        image_token_index=IMAGE_TOKEN,
        image_seq_length=grid * grid,
        vision_feature_layer=feature_layer,
    )
    model = LlavaForConditionalGeneration(config).eval()
    for name, parameter in model.named_parameters():
        if parameter.dim() > 1:
            nn.init.normal_(parameter, std=0.5 if "embed" in name else 1.2 * parameter.shape[-1] ** -0.5)
    model.set_attn_implementation(attention)
    model.generation_config.update(pad_token_id=PAD_TOKEN, eos_token_id=None, bos_token_id=1)
    return model


def random_images(count: int, *, grid: int = 5, seed: int = 1) -> Tensor:
    """(count, 3, side, side) float32, as normalised pixels."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, 3, 8 * grid, 8 * grid, generator=generator)


def words(count: int, *, seed: int) -> list[int]:
    """Ids of `count` ordinary tokens."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(IMAGE_TOKEN + 1, VOCAB, (count,), generator=generator).tolist()


def left_padded(*prompts: list[int]) -> tuple[Tensor, Tensor]:
    """Ids and attention mask, both (prompts, longest)."""
    longest = max(map(len, prompts))
    ids = [[PAD_TOKEN] * (longest - len(prompt)) + prompt for prompt in prompts]
    mask = [[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts]
    return torch.tensor(ids), torch.tensor(mask)
