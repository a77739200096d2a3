"""The shape of the models that ship: a LLaVA of a few million parameters with its own tokenizer and processor.

It is an ordinary `LlavaForConditionalGeneration` folder: a CLIP tower with a CLS row, a two-layer projector and a
LLaMA decoder. 224 px in patches of 14, as in CLIP's own towers of that size, give 256 visual tokens.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaProcessor,
    PreTrainedTokenizerFast,
)
from transformers.models.llava.image_processing_pil_llava import LlavaImageProcessorPil

from skipvision.zoo.turns import MADE_IN_TURN, questions_about

IMAGE_SIDE = 224
PATCH_SIDE = 14
VISUAL_TOKENS = (IMAGE_SIDE // PATCH_SIDE) ** 2
VOCABULARY = 640
IMAGE_MEAN = (0.8, 0.8, 0.8)
IMAGE_STD = (0.3, 0.3, 0.3)
_WRITTEN = re.compile(r"(?<![A-Za-z])[A-Z0-9]+(?![a-z])")
SPECIAL_TOKENS = ("<pad>", "<s>", "</s>", "<image>")
CHAT_TEMPLATE = (
    "<s>{% for message in messages %}{% if message['role'] == 'user' %}USER: "
    "{% for part in message['content'] if part['type'] == 'image' %}<image>\n{% endfor %}"
    "{% for part in message['content'] if part['type'] == 'text' %}{{ part['text'] }}{% endfor %}"
    "{% elif message['role'] == 'system' %}{% for part in message['content'] %}{{ part['text'] }} {% endfor %}"
    "{% else %} ASSISTANT:{% for part in message['content'] %}{{ part['text'] }}{% endfor %}</s>{% endif %}"
    "{% endfor %}{% if add_generation_prompt %} ASSISTANT:{% endif %}"
)


def tower_config() -> CLIPVisionConfig:
    return CLIPVisionConfig(
        hidden_size=192,
        intermediate_size=768,
        num_hidden_layers=4,
        num_attention_heads=3,
        image_size=IMAGE_SIDE,
        patch_size=PATCH_SIDE,
    )


def model_config() -> LlavaConfig:
    text = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=192,
        intermediate_size=512,
        num_hidden_layers=4,
        num_attention_heads=3,
        num_key_value_heads=3,
        head_dim=64,
        max_position_embeddings=1024,
        pad_token_id=SPECIAL_TOKENS.index("<pad>"),
        bos_token_id=SPECIAL_TOKENS.index("<s>"),
        eos_token_id=SPECIAL_TOKENS.index("</s>"),
        tie_word_embeddings=True,
    )
    return LlavaConfig(
        vision_config=tower_config(),
        text_config=text,
        image_token_index=SPECIAL_TOKENS.index("<image>"),
        vision_feature_layer=-1,
        vision_feature_select_strategy="default",
        tie_word_embeddings=True,
    )


def build_tokenizer() -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer over the words of questions and answers; what is written in a picture stays single
    characters."""
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    core.train_from_iterator(_sentences(), trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        extra_special_tokens={"image_token": "<image>"},
        padding_side="left",
        model_max_length=1024,
    )


def build_processor(
    tokenizer: PreTrainedTokenizerFast, *, side: int = IMAGE_SIDE, patch_side: int = PATCH_SIDE
) -> LlavaProcessor:
    """The processor that ships beside the weights: pads to a square of `side` pixels, as LLaVA does."""
    images = LlavaImageProcessorPil(
        do_pad=True,
        do_center_crop=False,
        size={"height": side, "width": side},
        image_mean=list(IMAGE_MEAN),
        image_std=list(IMAGE_STD),
    )
    return LlavaProcessor(
        image_processor=images,
        tokenizer=tokenizer,
        patch_size=patch_side,
        vision_feature_select_strategy="default",
        image_token="<image>",
        num_additional_image_tokens=1,
        chat_template=CHAT_TEMPLATE,
    )


def _sentences() -> Iterator[str]:
    """What is asked and answered. What is written in the pictures is in capitals and digits; it is left out, so that no
    two of its characters are merged."""
    for at in range(6000):
        for question, answer, _ in questions_about(MADE_IN_TURN[at % len(MADE_IN_TURN)], at, questions=3):
            yield f"USER: \n{_WRITTEN.sub('', question)} ASSISTANT:"
            yield _WRITTEN.sub("", answer)
