"""A LLaVA checkpoint small enough for a test: the real classes, random weights, a word-level tokenizer.

Nothing is downloaded and nothing is trained. The folder is what `save_pretrained` gives, so that whatever loads a
published checkpoint loads this one, tokenizer, chat template and image processor included.
"""

from __future__ import annotations

import string
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    CLIPImageProcessor,
    CLIPVisionConfig,
    GenerationConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaNextConfig,
    LlavaNextForConditionalGeneration,
    LlavaNextImageProcessor,
    LlavaNextProcessor,
    LlavaProcessor,
    MistralConfig,
    PreTrainedTokenizerFast,
    Qwen2Config,
)

DECODERS = {"llama": LlamaConfig, "mistral": MistralConfig, "qwen2": Qwen2Config}
SPECIAL = ("<pad>", "<unk>", "<s>", "</s>", "<image>")
TEXT = (
    "what is in the picture ? describe a an of and how many are there red green blue yellow circle square triangle "
    "star big small left right top bottom one two three user assistant shape colour . , :"
)
GRID = ((1, 2), (2, 1), (2, 2), (3, 1), (1, 3))
"""Rows and columns of tiles that LLaVA-NeXT may cut a picture into, as published."""
LETTERS = tuple(string.ascii_letters + string.digits + "-_!<>/|()[]{}'\"")
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ message['role'] }} : "
    "{% for part in message['content'] %}{% if part['type'] == 'image' %}<image> {% endif %}{% endfor %}"
    "{% for part in message['content'] %}{% if part['type'] == 'text' %}{{ part['text'] }} {% endif %}{% endfor %}"
    "{% endfor %}{% if add_generation_prompt %}assistant :{% endif %}"
)


def build_tiny_llava(
    folder: Path,
    *,
    image_size: int = 32,
    patch_size: int = 8,
    hidden: int = 64,
    layers: int = 2,
    heads: int = 4,
    kv_heads: int = 2,
    vision_hidden: int = 32,
    vision_layers: int = 3,
    context_tokens: int = 512,
    seed: int = 0,
    tiled: bool = False,
    decoder: str = "llama",
    **text_changes: Any,
) -> Path:
    """Save a random LLaVA checkpoint in `folder` and return the folder.

    An image makes `(image_size // patch_size) ** 2` visual tokens: 16 by default.

    Args:
        tiled: LLaVA-NeXT, which looks at one to four tiles of that size beside the whole.
    """
    tokenizer = build_tokenizer(context_tokens)
    vision = CLIPVisionConfig(
        hidden_size=vision_hidden,
        intermediate_size=2 * vision_hidden,
        num_hidden_layers=vision_layers,
        num_attention_heads=2,
        image_size=image_size,
        patch_size=patch_size,
        projection_dim=vision_hidden,
    )
    text = DECODERS[decoder](
        vocab_size=len(tokenizer),
        hidden_size=hidden,
        intermediate_size=2 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        max_position_embeddings=context_tokens,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        **text_changes,
    )
    grid = [[rows * image_size, columns * image_size] for rows, columns in GRID]
    config = (LlavaNextConfig if tiled else LlavaConfig)(
        **({"image_grid_pinpoints": grid} if tiled else {}),
        vision_config=vision,
        text_config=text,
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        image_seq_length=(image_size // patch_size) ** 2,
        vision_feature_layer=-2,
        vision_feature_select_strategy="default",
    )
    model = _random_model(config, seed)
    model.generation_config = GenerationConfig(
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    model.save_pretrained(folder, safe_serialization=True)
    build_processor(tokenizer, image_size=image_size, patch_size=patch_size, tiled=tiled).save_pretrained(folder)
    return folder


def build_tokenizer(context_tokens: int) -> PreTrainedTokenizerFast:
    """Words and punctuation, split at white space; single letters and digits are words too."""
    vocabulary = {word: index for index, word in enumerate(dict.fromkeys([*SPECIAL, *TEXT.split(), *LETTERS]))}
    words = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(
        tokenizer_object=words,
        pad_token="<pad>",
        unk_token="<unk>",
        bos_token="<s>",
        eos_token="</s>",
        additional_special_tokens=["<image>"],
        model_max_length=context_tokens,
    )


def build_processor(
    tokenizer: PreTrainedTokenizerFast, *, image_size: int, patch_size: int, tiled: bool = False
) -> LlavaProcessor | LlavaNextProcessor:
    sizes = {"size": {"shortest_edge": image_size}, "crop_size": {"height": image_size, "width": image_size}}
    grid = [[rows * image_size, columns * image_size] for rows, columns in GRID]
    images = LlavaNextImageProcessor(**sizes, image_grid_pinpoints=grid) if tiled else CLIPImageProcessor(**sizes)
    return (LlavaNextProcessor if tiled else LlavaProcessor)(
        image_processor=images,
        tokenizer=tokenizer,
        patch_size=patch_size,
        vision_feature_select_strategy="default",
        chat_template=CHAT_TEMPLATE,
        num_additional_image_tokens=1,
    )


def _random_model(
    config: LlavaConfig | LlavaNextConfig, seed: int
) -> LlavaForConditionalGeneration | LlavaNextForConditionalGeneration:
    """Weights five times wider than transformers draws them, so that different images get different answers."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        tiled = isinstance(config, LlavaNextConfig)
        model = (LlavaNextForConditionalGeneration if tiled else LlavaForConditionalGeneration)(config).float().eval()
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.dim() > 1:
                    parameter.mul_(5.0)
    return model
