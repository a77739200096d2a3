"""How the shipped model's vision tower learns to see, as CLIP's did before LLaVA took it.

Scenes are rendered, so the truth of every patch is known: the tower is trained to name, for each patch, the shape,
colour, size, letter, place and centre of what covers it, and from its CLS token which things are in the picture at
all. A retained token is read away from where it stood, so that it must carry its place itself.

Naming what is there needs one patch of each thing; Skip-Vision, which selects tokens by the CLS token's attention row,
needs them all. So that row is drawn to every covered patch. The heads are thrown away afterwards.
"""

from __future__ import annotations

import io
import random
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image, ImageFont
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy, smooth_l1_loss
from transformers import CLIPVisionModel

from skipvision.families.clip import ClsRow, watching_cls
from skipvision.scenes import (
    BACKGROUNDS,
    CELLS,
    COLOURS,
    LETTERS,
    SHAPES,
    SIZES,
    TEXT_HEIGHT,
    Scene,
    Shape,
    Text,
    scene,
)  # fmt: skip
from skipvision.zoo.schedule import Schedule
from skipvision.zoo.shape import IMAGE_MEAN, IMAGE_SIDE, IMAGE_STD, PATCH_SIDE

GRID = IMAGE_SIDE // PATCH_SIDE
COLOUR_NAMES = tuple(COLOURS)
SIZE_NAMES = tuple(SIZES)
FULL = (1, 2, 3, 4, 5, 6)
"""How many shapes the scenes have that the tower learns from."""


@dataclass(frozen=True, slots=True)
class PatchTruth:
    """What covers each patch; 0 means nothing in the integer maps."""

    shape: np.ndarray
    """(GRID, GRID) int64: 0 nothing, 1 to 6 a shape, 7 text."""
    colour: np.ndarray
    size: np.ndarray
    letter: np.ndarray
    cell: np.ndarray
    """(GRID, GRID) int64: 0 nothing, 1 to 9 where its object stands, in reading order."""
    offset: np.ndarray
    """(GRID, GRID, 2) float32: from the patch to the centre of its object, in shares of the side."""
    present: np.ndarray
    """(kinds,) float32: which (colour, shape) pairs and letters are in the picture."""


def patch_truth(drawn: Scene, *, stretch: float = 1.0) -> PatchTruth:
    """Derive the truth of every patch from the scene's geometry, after `photograph` with the same `stretch`."""
    shape, colour, size, letter, cell = (np.zeros((GRID, GRID), np.int64) for _ in range(5))
    offset = np.zeros((GRID, GRID, 2), np.float32)
    present = np.zeros(len(SHAPES) * len(COLOUR_NAMES) + len(LETTERS), np.float32)
    # Patch centres in the scene's own coordinates, in which it spans 0 to 1.
    centres = ((np.arange(GRID) + 0.5) / GRID - 0.5) * stretch + 0.5
    for thing in drawn.shapes:
        dx, dy = thing.x - centres[None, :], thing.y - centres[:, None]
        inside = (np.abs(dx) <= thing.half_width) & (np.abs(dy) <= thing.half_width)
        shape[inside] = 1 + SHAPES.index(thing.shape)
        colour[inside] = 1 + COLOUR_NAMES.index(thing.colour)
        size[inside] = 1 + SIZE_NAMES.index(thing.size)
        cell[inside] = _cell(thing)
        offset[inside] = np.stack(np.broadcast_arrays(dx, dy), axis=-1)[inside]
        present[SHAPES.index(thing.shape) * len(COLOUR_NAMES) + COLOUR_NAMES.index(thing.colour)] = 1
    if drawn.text:
        for character, left, right in _letter_spans(drawn):
            across = (centres >= left) & (centres < right)
            down = np.abs(centres - drawn.text.y) <= TEXT_HEIGHT * 0.4
            inside = down[:, None] & across[None, :]
            shape[inside] = 1 + len(SHAPES)
            letter[inside] = 1 + LETTERS.index(character)
            cell[inside] = _cell(drawn.text)
            offset[inside, 0] = (np.broadcast_to((left + right) / 2 - centres[None, :], inside.shape))[inside]
            present[len(SHAPES) * len(COLOUR_NAMES) + LETTERS.index(character)] = 1
    return PatchTruth(shape, colour, size, letter, cell, offset, present)


def photograph(drawn: Scene, rng: random.Random, *, stretch: float = 1.0) -> np.ndarray:
    """Render for training, as pictures arrive in life: other sizes, wider than high, padded, JPEG, noise, light.

    Args:
        drawn: the scene.
        rng: decides everything else.
        stretch: at least 1. Above, the picture is that much wider (or higher) than the scene, in its background's
            colour, and padded to a square as the processor pads.

    Returns:
        (IMAGE_SIDE, IMAGE_SIDE, 3) uint8.
    """
    picture = drawn.render(rng.choice((IMAGE_SIDE, 160, 192, 256)))
    if stretch > 1:
        picture = _widen(picture, stretch, BACKGROUNDS[drawn.background], upright=rng.random() < 0.5)
    if rng.random() < 0.3:
        memory = io.BytesIO()
        picture.save(memory, "JPEG", quality=rng.randint(40, 95))
        picture = Image.open(memory)
    picture = picture.resize((IMAGE_SIDE, IMAGE_SIDE), Image.Resampling.BICUBIC)
    pixels = np.asarray(picture, np.float32)
    if rng.random() < 0.5:
        pixels = pixels * rng.uniform(0.9, 1.05) + rng.uniform(-8, 8)
    if rng.random() < 0.3:
        noise = np.random.default_rng(rng.getrandbits(32)).standard_normal(pixels.shape, np.float32)
        pixels = pixels + noise * rng.uniform(1, 6)
    return pixels.clip(0, 255).astype(np.uint8)


def draw_stretch(rng: random.Random) -> float:
    """One picture in four is not square."""
    return rng.uniform(1.05, 1.4) if rng.random() < 0.25 else 1.0


def normalise(pixels: Tensor) -> Tensor:
    """(n, height, width, 3) uint8 -> (n, 3, height, width) float32 as the tower expects it."""
    mean, std = pixels.new_tensor(IMAGE_MEAN, dtype=torch.float32), pixels.new_tensor(IMAGE_STD, dtype=torch.float32)
    return ((pixels.float() / 255 - mean) / std).permute(0, 3, 1, 2).contiguous()


class SightLessons(nn.Module):
    """The tower with the heads that teach it. `forward` gives the loss of one batch and its shares of right patches."""

    def __init__(self, tower: CLIPVisionModel) -> None:
        super().__init__()
        self.tower = tower
        width = tower.config.hidden_size
        self.kinds = {
            "shape": len(SHAPES) + 2,
            "colour": len(COLOUR_NAMES) + 1,
            "size": len(SIZE_NAMES) + 1,
            "letter": len(LETTERS) + 1,
            "cell": len(CELLS) ** 2 + 1,
        }
        self.patch_head = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, sum(self.kinds.values()) + 2))
        self.presence_head = nn.Linear(width, len(SHAPES) * len(COLOUR_NAMES) + len(LETTERS))

    def forward(self, pixels: Tensor, truths: list[PatchTruth]) -> tuple[Tensor, dict[str, float]]:
        """Give the loss of a batch, and for every kind the share of its patches that are named right.

        Args:
            pixels: (images, side, side, 3) uint8.
            truths: one for each image.
        """
        with watching_cls(self.tower, self.tower.config.num_hidden_layers - 1) as row:
            seen = self.tower(normalise(pixels), output_hidden_states=True)
        patches = self.patch_head(seen.hidden_states[-1][:, 1:]).flatten(0, 1)
        *named, offset = patches.split([*self.kinds.values(), 2], dim=-1)
        loss, right = patches.new_zeros(()), {}
        for logits, kind in zip(named, self.kinds, strict=True):
            wanted = torch.from_numpy(np.stack([getattr(truth, kind) for truth in truths])).flatten()
            weight = logits.new_ones(logits.shape[-1])
            weight[0] = 0.15  # most patches are empty
            loss = loss + cross_entropy(logits, wanted, weight=weight)
            right[kind] = (logits.argmax(-1) == wanted)[wanted > 0].float().mean().item()
        covered = torch.from_numpy(np.stack([truth.shape > 0 for truth in truths])).flatten(1)
        away = torch.from_numpy(np.stack([truth.offset for truth in truths])).flatten(0, 2)
        loss = loss + 20 * smooth_l1_loss(offset[covered.flatten()], away[covered.flatten()], beta=0.02)
        present = torch.from_numpy(np.stack([truth.present for truth in truths]))
        loss = loss + 10 * binary_cross_entropy_with_logits(self.presence_head(seen.pooler_output), present)
        return loss + 0.5 * _gaze_loss(row, covered.float()), right


def _gaze_loss(row: ClsRow, covered: Tensor) -> Tensor:
    """Cross-entropy from an even look at the covered patches, (images, tokens) of 0 and 1, to the CLS row."""
    cls_query, keys, scaling = row.parts()
    look = ((keys @ cls_query[..., None]).squeeze(-1) * scaling).softmax(dim=-1).mean(dim=1)[:, 1:]
    return -((covered * look.clamp(min=1e-8).log()).sum(dim=1) / covered.sum(dim=1).clamp(min=1)).mean()


def _cell(thing: Shape | Text) -> int:
    return 1 + thing.cell[0] * len(CELLS) + thing.cell[1]


def _widen(picture: Image.Image, stretch: float, background: tuple[int, int, int], *, upright: bool) -> Image.Image:
    """Extend a square picture along one axis, then pad the other as the processor does."""
    side, longer = picture.width, round(picture.width * stretch)
    bars = tuple(int(mean * 255) for mean in IMAGE_MEAN)
    square = Image.new("RGB", (longer, longer), bars)
    start = (longer - side) // 2
    strip = (side, longer) if upright else (longer, side)
    square.paste(Image.new("RGB", strip, background), (start, 0) if upright else (0, start))
    square.paste(picture, (start, start))
    return square


def _letter_spans(drawn: Scene) -> list[tuple[str, float, float]]:
    assert drawn.text is not None
    font = ImageFont.load_default(size=TEXT_HEIGHT * 1000)
    widths = [font.getlength(character) / 1000 for character in drawn.text.letters]
    edges = np.cumsum([0.0, *widths]) + drawn.text.x - sum(widths) / 2
    return list(zip(drawn.text.letters, edges[:-1].tolist(), edges[1:].tolist(), strict=True))


def train_tower(lessons: SightLessons, *, steps: int, batch: int, peak: float, first_seed: int, seed: int) -> None:
    """Teach the tower in place on freshly rendered scenes, whose seeds count up from `first_seed`.

    The scenes are fuller than those of the later stages: what a patch teaches costs as much where nothing is.
    """
    lessons.train()
    schedule = Schedule(lessons, peak=peak, steps=steps, name="tower")
    rng = random.Random(seed)
    for step in range(steps):
        seeds = range(first_seed + step * batch, first_seed + (step + 1) * batch)
        scenes = [(scene(at, shapes=FULL, text_share=0.8), draw_stretch(rng)) for at in seeds]
        pixels = torch.from_numpy(np.stack([photograph(drawn, rng, stretch=by) for drawn, by in scenes]))
        loss, right = lessons(pixels, [patch_truth(drawn, stretch=by) for drawn, by in scenes])
        schedule.learn(loss)
        if step % 50 == 0:
            schedule.say(loss=loss.item(), **right)
