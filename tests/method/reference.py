"""Skip-Vision slowly and plainly, from its description: what the fast code is tested against.

Loops instead of kernels, one prompt at a time, no cache unless it is the subject, no padding. Nothing here imports
the package under test. Shapes have no batch dimension: an image is (tokens, dim), a prompt is (tokens, hidden).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

Sees = Callable[[int, int], bool]
"""Whether the row at one position attends to the column at another."""


def merge(features: Tensor, num_groups: int) -> tuple[list[list[int]], Tensor]:
    """Members of every group, and the groups' means: (tokens, dim) -> (num_groups, dim)."""
    tokens = len(features)
    likeness = [[_cosine(features[i].detach(), features[j].detach()) for j in range(tokens)] for i in range(tokens)]
    redundancy = [sum(likeness[i][j] for j in range(tokens) if j != i) for i in range(tokens)]
    by_redundancy = sorted(range(tokens), key=lambda i: -redundancy[i])
    sources, destinations = by_redundancy[: tokens - num_groups], by_redundancy[tokens - num_groups :]

    groups = {destination: [destination] for destination in destinations}
    for source in sources:
        groups[max(destinations, key=lambda destination: likeness[source][destination])].append(source)
    means = [torch.stack([features[i] for i in members]).mean(dim=0) for members in groups.values()]
    return [sorted(members) for members in groups.values()], torch.stack(means)


def _cosine(a: Tensor, b: Tensor) -> float:
    return float((a.double() @ b.double()) / (a.double().norm() * b.double().norm()))


def pool(region: Tensor, weights: Mapping[str, Tensor]) -> Tensor:
    """A summary token: (tokens, dim) -> (dim,), by the weights of `LayerNorm -> Linear(dim, 1)`."""
    scores = []
    for token in region:
        centred = token - token.mean()
        normed = centred / torch.sqrt((centred**2).mean() + 1e-5) * weights["norm.weight"] + weights["norm.bias"]
        scores.append(normed @ weights["score.weight"][0] + weights["score.bias"][0])
    shares = [torch.exp(score - max(scores)) for score in scores]
    total = torch.stack(shares).sum()
    return torch.stack([share / total * token for share, token in zip(shares, region, strict=True)]).sum(dim=0)


def cls_row(query: Tensor, keys: Tensor, scaling: float) -> Tensor:
    """What CLS attends to: query (heads, head_dim), keys (heads, 1 + n, head_dim) -> (n,), summed over heads."""
    total = torch.zeros(keys.shape[1] - 1)
    for head in range(len(query)):
        logits = [float(query[head] @ key) * scaling for key in keys[head]]
        largest = max(logits)
        shares = [math.exp(logit - largest) for logit in logits]
        total += torch.tensor([share / sum(shares) for share in shares[1:]])
    return total


@dataclass(frozen=True)
class Regions:
    """One image after the split."""

    retained: Tensor
    """(retained, dim), in raster order."""

    skipped: Tensor
    """(skipped, dim); in raster order, or as the merge orders them."""

    retained_index: list[int]

    def in_order(self, summary: Mapping[str, Tensor] | None) -> list[tuple[Tensor, bool]]:
        """Each token with whether it is skipped, as the decoder reads them."""
        retained = [(token, False) for token in self.retained]
        skipped = [(token, True) for token in self.skipped]
        if summary is None or not skipped:
            return retained + skipped
        return [*retained, (pool(self.retained, summary), False), *skipped, (pool(self.skipped, summary), False)]


def split(features: Tensor, scores: Tensor, *, retain: int, merge_skipped_to: int | None) -> Regions:
    """Part the tokens of one image: features (n, dim), scores (n,)."""
    best = sorted(sorted(range(len(features)), key=lambda i: -scores[i].item())[:retain])
    others = features[[i for i in range(len(features)) if i not in best]]
    if merge_skipped_to is not None and merge_skipped_to < len(others):
        others = merge(others, merge_skipped_to)[1]
    return Regions(features[best], others, best)


@dataclass(frozen=True)
class Prompt:
    """One prompt as the decoder reads it."""

    rows: Tensor
    """(tokens, hidden)."""

    skipped: frozenset[int]
    """Positions of the skipped tokens."""

    id_index: list[int | None]
    """For each position the index in the prompt's ids, None for what came out of an image."""

    @property
    def kept(self) -> list[int]:
        return [position for position in range(len(self.rows)) if position not in self.skipped]


def look(model: nn.Module, pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Projected features (images, n, hidden) and CLS attention (images, n), with every map of an eager tower."""
    tower, chosen = model.model.vision_tower, model.config.vision_feature_layer
    was = tower.config._attn_implementation
    tower.set_attn_implementation("eager")
    seen = tower(pixels, output_attentions=True, output_hidden_states=True, return_dict=True)
    tower.set_attn_implementation(was)
    # hidden_states starts with the embeddings, attentions with the first layer.
    layer = chosen if chosen < 0 else chosen - 1
    features = model.model.multi_modal_projector(seen.hidden_states[chosen][:, 1:])
    return features, seen.attentions[layer][:, :, 0, 1:].sum(dim=1)


def assemble(
    model: nn.Module,
    ids: Sequence[int],
    pixels: Tensor | None,
    *,
    retain: int | None = None,
    merge_skipped_to: int | None = None,
    summary: Mapping[str, Tensor] | None = None,
) -> Prompt:
    """The sequence the decoder reads; `ids` as the stock processor writes them, one placeholder per visual token."""
    image_token, embed = model.config.image_token_id, model.get_input_embeddings()
    images = list(zip(*look(model, pixels), strict=True)) if pixels is not None else []
    rows: list[Tensor] = []
    skipped, id_index, index = set(), [], 0
    while index < len(ids):
        if ids[index] != image_token:
            rows.append(embed(torch.tensor(ids[index])))
            id_index.append(index)
            index += 1
            continue
        features, scores = images.pop(0)
        retained = len(features) if retain is None else retain
        regions = split(features, scores, retain=retained, merge_skipped_to=merge_skipped_to)
        for row, is_skipped in regions.in_order(summary):
            skipped |= {len(rows)} if is_skipped else set()
            rows.append(row)
            id_index.append(None)
        index += len(features)
    assert not images, "every image has its placeholders"
    return Prompt(torch.stack(rows), frozenset(skipped), id_index)


class PlainDecoder:
    """A LLaMA decoder row by row, with the weights of a stock one."""

    def __init__(self, model: nn.Module) -> None:
        self.stock, self.head = model.model.language_model, model.lm_head
        self.embed = model.get_input_embeddings()
        config = model.config.text_config
        self.heads, self.kv_heads, self.head_dim = (
            config.num_attention_heads,
            config.num_key_value_heads,
            config.head_dim,
        )
        self.theta, self.eps = config.rope_parameters["rope_theta"], config.rms_norm_eps

    def read(self, rows: Tensor, skipped: frozenset[int], sees: Sees) -> Tensor:
        """One sequence, every position computed in every layer: (tokens, hidden) -> (tokens, vocab)."""
        for layer in self.stock.layers:
            heads = [self._project(layer, row, position) for position, row in enumerate(rows)]
            attended = []
            for i, row in enumerate(rows):
                visible = [j for j in range(len(rows)) if sees(i, j)]
                attended.append(row + self._attend(layer, heads[i][0], [heads[j][1:] for j in visible]))
            rows = torch.stack([row if i in skipped else row + self._ffn(layer, row) for i, row in enumerate(attended)])
        return self.logits(rows)

    def read_prompt(self, prompt: Prompt) -> Tensor:
        """Plain causal reading: (tokens, vocab)."""
        return self.read(prompt.rows, prompt.skipped, lambda row, column: column <= row)

    def greedy_under_a_mask(self, prompt: Prompt, num_tokens: int) -> tuple[list[int], Tensor]:
        """Generate without any cache: all is read again for each token, skipped columns masked for new rows.

        Returns the tokens and the logits each was chosen from, (num_tokens, vocab).
        """
        start, rows = len(prompt.rows), prompt.rows

        def sees(row: int, column: int) -> bool:
            return column <= row and not (row >= start and column in prompt.skipped)

        tokens, chosen_from = [], []
        for _ in range(num_tokens):
            chosen_from.append(self.read(rows, prompt.skipped, sees)[-1])
            tokens.append(int(chosen_from[-1].argmax()))
            rows = torch.cat([rows, self.embed(torch.tensor(tokens[-1:]))])
        return tokens, torch.stack(chosen_from)

    def logits(self, rows: Tensor) -> Tensor:
        return self.head(_rms_norm(rows, self.stock.norm.weight, self.eps))

    def _project(self, layer: nn.Module, row: Tensor, position: int) -> tuple[Tensor, Tensor, Tensor]:
        attention, x = layer.self_attn, _rms_norm(row, layer.input_layernorm.weight, self.eps)
        query = attention.q_proj(x).view(self.heads, self.head_dim)
        key = attention.k_proj(x).view(self.kv_heads, self.head_dim)
        value = attention.v_proj(x).view(self.kv_heads, self.head_dim)
        return _rotate(query, position, self.theta), _rotate(key, position, self.theta), value

    def _attend(self, layer: nn.Module, query: Tensor, memory: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
        keys, values = (torch.stack(part) for part in zip(*memory, strict=True))
        outputs = []
        for head in range(self.heads):
            shared = head // (self.heads // self.kv_heads)
            shares = torch.softmax(keys[:, shared] @ query[head] / math.sqrt(self.head_dim), dim=0)
            outputs.append(shares @ values[:, shared])
        return layer.self_attn.o_proj(torch.cat(outputs))

    def _ffn(self, layer: nn.Module, row: Tensor) -> Tensor:
        x, ffn = _rms_norm(row, layer.post_attention_layernorm.weight, self.eps), layer.mlp
        return ffn.down_proj(nn.functional.silu(ffn.gate_proj(x)) * ffn.up_proj(x))


class TwoStreams(PlainDecoder):
    """The same decoder with the skipped stream kept apart; the streams share nothing but keys and values.

    The skipped stream has no FFN at all, no output after the last layer, and is gone when decoding starts.
    """

    def read_prompt(self, prompt: Prompt) -> Tensor:
        """Logits of the kept positions, in order: (kept, vocab). Leaves the kept keys and values behind."""
        main = {position: prompt.rows[position] for position in prompt.kept}
        skipped = {position: prompt.rows[position] for position in sorted(prompt.skipped)}
        self.memory: list[list[tuple[Tensor, Tensor]]] = []
        self.next_position = len(prompt.rows)
        for layer in self.stock.layers:
            own = {position: self._project(layer, row, position) for position, row in main.items()}
            other = {position: self._project(layer, row, position) for position, row in skipped.items()}
            main = {at: row + self._attend(layer, own[at][0], _up_to(at, own, other)) for at, row in main.items()}
            main = {at: row + self._ffn(layer, row) for at, row in main.items()}
            skipped = {
                at: row + self._attend(layer, other[at][0], _up_to(at, own, other)) for at, row in skipped.items()
            }
            self.memory.append([(key, value) for _, key, value in own.values()])
        return self.logits(torch.stack(list(main.values())))

    def step(self, token: int) -> Tensor:
        """Read one generated token from the kept memory: (vocab,)."""
        row = self.embed(torch.tensor(token))
        for layer, memory in zip(self.stock.layers, self.memory, strict=True):
            query, key, value = self._project(layer, row, self.next_position)
            memory.append((key, value))
            row = row + self._attend(layer, query, memory)
            row = row + self._ffn(layer, row)
        self.next_position += 1
        return self.logits(row)

    def greedy(self, prompt: Prompt, num_tokens: int) -> tuple[list[int], Tensor]:
        """Generate from the kept memory: the tokens, and the logits each was chosen from."""
        chosen_from = [self.read_prompt(prompt)[-1]]
        tokens = [int(chosen_from[-1].argmax())]
        while len(tokens) < num_tokens:
            chosen_from.append(self.step(tokens[-1]))
            tokens.append(int(chosen_from[-1].argmax()))
        return tokens, torch.stack(chosen_from)


def _up_to(position: int, *streams: Mapping[int, tuple[Tensor, Tensor, Tensor]]) -> list[tuple[Tensor, Tensor]]:
    return [(key, value) for stream in streams for at, (_, key, value) in stream.items() if at <= position]


def _rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    return x / torch.sqrt((x**2).mean(dim=-1, keepdim=True) + eps) * weight


def _rotate(heads: Tensor, position: int, theta: float) -> Tensor:
    half = heads.shape[-1] // 2
    angles = torch.tensor([position * theta ** (-i / half) for i in range(half)])
    first, second = heads[:, :half], heads[:, half:]
    cos, sin = angles.cos(), angles.sin()
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)


def loss_over_kept(prompt: Prompt, kept_logits: Tensor, labels: Sequence[int]) -> Tensor:
    """Mean cross-entropy of the next kept token, where it has a label; images have none. `labels` as `ids`."""
    losses = []
    for row, position in enumerate(prompt.kept[1:]):
        index = prompt.id_index[position]
        if index is not None and labels[index] != -100:
            losses.append(-torch.log_softmax(kept_logits[row], dim=-1)[labels[index]])
    return torch.stack(losses).mean()
