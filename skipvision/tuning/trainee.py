"""The model as it is taught: packed samples in, the loss of their answers out.

The decoder runs through transformers' own forward, so that activation checkpointing and sharding by layer work as they
do for any model; around it stand the family's vision side, the split of the visual tokens, Skip-FFN and an attention
over packed samples, which builds no mask over the whole row.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, scaled_dot_product_attention

from skipvision.families import Family, TrainableFamily
from skipvision.method.plan import SkipConfig
from skipvision.method.skip_ffn import FfnRows, SkipFFN, skipping_ffn
from skipvision.method.split import split_visual_tokens
from skipvision.method.summary import SummaryPooling
from skipvision.tuning.packing import PackedSamples
from skipvision.tuning.settings import LoraConfig, Part

_IMAGES_PER_LOOK = 32
"""Bounds what the tower holds at a time."""


class Trainee(nn.Module):
    """A family's model with its summary pooling, of which some parts learn.

    Args:
        family: its weights are float32, and stay so.
        skip: how the visual tokens are split.
        learning: parts whose weights get gradients; the summary pooling does wherever it is used.
        lora: adapters for the decoder, whose own weights then rest.
    """

    def __init__(
        self, family: TrainableFamily, skip: SkipConfig, *, learning: Sequence[Part], lora: LoraConfig | None = None
    ) -> None:
        super().__init__()
        self._family = family
        self.skip = skip
        self.model: Any = family.model
        self.summary: SummaryPooling | None = _summary(family) if skip.summarise else None
        self.resampler = family.resampler
        self._merge: Callable[[], Any] = lambda: self.model
        if lora is not None:
            self._merge = _add_adapters(self.model, lora)
        for name, parameter in self.model.named_parameters():
            rests = {"decoder": lora is not None and "lora_" not in name, "projector": self.resampler is not None}
            part = part_of(name)
            parameter.requires_grad_(part in learning and not rests.get(part, False))
        if self.resampler is not None:
            self.resampler.requires_grad_("projector" in learning)

    @property
    def layers(self) -> Sequence[nn.Module]:
        """The decoder's."""
        return self._family.layers

    def learnable(self) -> dict[str, nn.Parameter]:
        """What gets gradients, by name."""
        return {name: parameter for name, parameter in self.named_parameters() if parameter.requires_grad}

    def merged(self) -> Any:
        """The model with its adapters multiplied into the weights they adapt, and gone."""
        return self._merge()

    @contextmanager
    def skipping(self) -> Iterator[None]:
        """Skip-FFN around forward and backward passes: activation checkpointing runs layers again on the way back."""
        with skipping_ffn(self.layers, FfnRows()):
            yield

    def forward(self, packed: PackedSamples) -> Tensor:
        """The summed cross-entropy of all answer tokens, float32; inside `skipping()` if anything is skipped.

        The loss stands on rows that run every block: skipped and summary rows say nothing.
        """
        if packed.ffn_rows is not None and not isinstance(self.layers[0].mlp, SkipFFN):
            raise RuntimeError("samples with skipped tokens are learnt inside skipping()")
        hidden = self._decoder(
            inputs_embeds=self._embedded(packed)[None],
            position_ids=packed.positions[None],
            use_cache=False,
            skip_ffn_rows=packed.ffn_rows,
            attend=_PackedAttention(packed),
        ).last_hidden_state[0]
        said = self.model.lm_head(hidden.index_select(0, packed.speaking_rows))
        return cross_entropy(said.float(), packed.wanted_ids, reduction="sum")

    @property
    def _decoder(self) -> Any:
        return self.model.model.language_model

    def _embedded(self, packed: PackedSamples) -> Tensor:
        """(rows, hidden): the embeddings of text and images, each in its rows."""
        text = self.model.get_input_embeddings()(packed.text_ids)
        rows: Tensor = text.new_zeros(len(packed.positions), text.shape[-1]).index_copy(0, packed.text_rows, text)
        if not packed.pixels:
            return rows + self._nothing()
        visual = torch.cat(self._blocks(packed.pixels)).to(rows.dtype)
        return rows.index_copy(0, packed.image_rows, visual)

    def _blocks(self, pixels: Sequence[np.ndarray]) -> list[Tensor]:
        """What the decoder reads of each image, (tokens, hidden)."""
        blocks: dict[int, Tensor] = {}
        shapes = {image.shape for image in pixels}
        for shape in sorted(shapes):
            alike = [at for at, image in enumerate(pixels) if image.shape == shape]
            for start in range(0, len(alike), _IMAGES_PER_LOOK):
                some = alike[start : start + _IMAGES_PER_LOOK]
                batch = torch.from_numpy(np.stack([pixels[at] for at in some])).to(self._family.device)
                seen = self._family.look(batch)
                features, saliency = torch.stack([*seen.features]), torch.stack([*seen.saliency])
                split = split_visual_tokens(
                    features, saliency, self.skip, self.summary, pooled_from=self._family.pooled_from
                )
                blocks.update(zip(some, split.sequence(), strict=True))
        return [blocks[at] for at in range(len(pixels))]

    def _nothing(self) -> Tensor:
        """Zero, with a gradient of zeros for what a pass without images does not use: workers exchange gradients of
        the same parameters in every pass."""
        unused = [
            parameter
            for name, parameter in self.learnable().items()
            if name.startswith("summary.") or part_of(name) != "decoder"
        ]
        return sum(
            (parameter.flatten()[:1].sum() * 0 for parameter in unused), torch.zeros((), device=self._family.device)
        )


def part_of(name: str) -> Part:
    """Which part of the model a parameter belongs to, by its name."""
    if ".vision_tower." in f".{name}":
        return "tower"
    if ".multi_modal_projector." in f".{name}" or name.endswith("image_newline") or name.startswith("resampler."):
        return "projector"
    return "decoder"


class _PackedAttention:
    """Causal attention within each sample of a packed row. See `skipvision.families.family.Attend`."""

    def __init__(self, packed: PackedSamples) -> None:
        self._bounds = [*zip((0, *packed.ends[:-1]), packed.ends, packed.sights, strict=True)]

    def __call__(self, layer: int, q: Tensor, k: Tensor, v: Tensor, scaling: float, *, only_wanted: bool) -> Tensor:
        """See `Attend`: (rows, heads, head_dim) of attention."""
        mixed = []
        for start, stop, sight in self._bounds:
            own_q, own_k, own_v = (x[None, start:stop].transpose(1, 2) for x in (q, k, v))
            seen = scaled_dot_product_attention(
                own_q,
                own_k,
                own_v,
                attn_mask=sight,
                is_causal=sight is None,
                scale=scaling,
                enable_gqa=q.shape[1] != k.shape[1],
            )
            mixed.append(seen[0].transpose(0, 1))
        return torch.cat(mixed)


def _summary(family: Family) -> SummaryPooling:
    """The checkpoint's, or a new one where it never had any."""
    return family.summary or SummaryPooling(family.shape.hidden).to(family.device)


def _add_adapters(model: Any, lora: LoraConfig) -> Callable[[], Any]:
    """Put adapters into the decoder's linear layers, in place; what merges them and gives the model."""
    from peft import LoraConfig as PeftConfig
    from peft import LoraModel

    decoder = model.model.language_model
    names = {name.rpartition(".")[2] for name, part in decoder.named_modules() if isinstance(part, nn.Linear)}
    settings = PeftConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,  # type: ignore[arg-type]  # any number will do
        lora_dropout=lora.dropout,
        target_modules=rf".*language_model.*\.({'|'.join(sorted(names))})",
    )
    merge: Callable[[], Any] = LoraModel(model, settings, "default").merge_and_unload
    return merge
