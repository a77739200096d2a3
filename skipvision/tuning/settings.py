"""Settings of a fine-tuning run. `skipvision.config.load` reads them from a YAML file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from pydantic import ConfigDict, Field

from skipvision.config import Skip
from skipvision.errors import ConfigError

Part = Literal["tower", "projector", "decoder"]
Stage = Literal["projector", "sft"]

PARTS_OF_STAGE: dict[Stage, tuple[Part, ...]] = {"projector": ("projector",), "sft": ("projector", "decoder")}
"""What learns in each stage of the paper: stage 1 aligns the projector, stage 2 fine-tunes it with the decoder."""

_STRICT = ConfigDict(extra="forbid", use_attribute_docstrings=True)


@dataclass(frozen=True, kw_only=True, slots=True)
class LoraConfig:
    """Low-rank adapters in the decoder's linear layers instead of its own weights (arXiv:2106.09685)."""

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT

    rank: Annotated[int, Field(ge=1)] = 64
    alpha: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 128.0
    """The adapters' product is scaled by alpha / rank."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0


@dataclass(frozen=True, kw_only=True, slots=True)
class TuneConfig:
    """One fine-tuning run: which model, which conversations, what learns, and where the result goes."""

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT

    data: tuple[str, ...] | str
    """JSONL, JSON or Parquet files of conversations, in LLaVA's format or as `messages`."""

    output: str
    """The run's folder. The finished checkpoint is its `model`."""

    model: str | None = None
    """Checkpoint folder or hub id to start from. None: the model that ships with the package."""

    images: str | None = None
    """Folder that relative image paths start from. None: the folder of the data file."""

    stage: Stage = "sft"
    """`projector`: the projector alone, nothing skipped. `sft`: projector and decoder, with skipping."""

    skip: Skip = "auto"
    """`off`, `R/S` such as `100/156`, `R/S:plain`, or `auto`: what the checkpoint carries."""

    train: tuple[Part, ...] | None = None
    """What learns. None: what the stage says. The summary pooling learns wherever it is used."""

    lora: LoraConfig | None = None
    """Adapters for the decoder. None: its weights themselves learn."""

    forgetting: bool = False
    """Hide skipped tokens from all but the first token of an answer, as they are when it is decoded."""

    epochs: Annotated[int, Field(ge=1)] = 1

    steps: Annotated[int, Field(ge=1)] | None = None
    """Stop after so many steps. None: after the last epoch."""

    batch: Annotated[int, Field(ge=1)] = 128
    """Conversations of one step, over all workers."""

    tokens_per_pass: Annotated[int, Field(ge=1)] = 16_384
    """Tokens, visual ones included, that go through the model at a time; a step takes several passes."""

    max_tokens: Annotated[int, Field(ge=2)] = 2048
    """Longest conversation, visual tokens included; longer ones are set aside."""

    learning_rate: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    """Its peak. None: the stage's, or that of adapters."""

    warm_up: Annotated[float, Field(ge=0, le=1)] = 0.03
    """Share of the steps in which the learning rate climbs; it falls along a cosine after them."""

    weight_decay: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0

    clip: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.0
    """Longest gradient."""

    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    """Decides the order of the conversations and how new weights start."""

    gradient_checkpointing: bool = True
    """Compute each layer again on the way back instead of keeping what it made."""

    save_every: Annotated[int, Field(ge=1)] = 500
    """Steps from one checkpoint to the next; what a kill can cost."""

    keep: Annotated[int, Field(ge=1)] = 2
    """Checkpoints that are kept."""

    loaders: Annotated[int, Field(ge=0)] = 2
    """Processes of each worker that read images ahead; 0: the worker reads them itself."""

    workers: Annotated[int, Field(ge=1)] = 1
    """Training processes. More than one run on Ray."""

    sharding: Literal["ddp", "fsdp"] = "ddp"
    """What each worker holds: the whole model (`ddp`), or its share of weights and optimizer state (`fsdp`)."""

    device: str = "auto"
    """`auto`: a GPU where there is one, else the CPU; or a torch device name."""

    dtype: str = "auto"
    """What is multiplied: `auto`, `float32` or `bfloat16`. Weights that learn are float32 throughout."""

    allow_networks: tuple[str, ...] = ()
    """Private networks, such as 10.1.0.0/16, that image addresses may point into. Public ones always may."""

    ray_address: str | None = None
    """A running Ray cluster for the workers. None: start Ray on this machine."""

    def __post_init__(self) -> None:
        if self.stage == "projector" and self.skip not in ("off", "auto"):
            raise ConfigError(f"skip is {self.skip!r} and stage 'projector' skips nothing: leave it off, or say 'sft'")
        if self.train == ():
            raise ConfigError("train names nothing that learns; name some of tower, projector, decoder")
        if self.lora is not None and "decoder" not in self.learning:
            raise ConfigError("lora adapts the decoder, which is not among what learns: add it to train, or drop lora")
        if not self.data:
            raise ConfigError("data names no file")
        if self.dtype == "float16":
            raise ConfigError("dtype 'float16' overflows in training; use 'bfloat16' or 'float32'")

    @property
    def learning(self) -> tuple[Part, ...]:
        """What learns."""
        return self.train if self.train is not None else PARTS_OF_STAGE[self.stage]

    @property
    def peak_rate(self) -> float:
        """The learning rate after the warm-up; the paper's where it has one."""
        if self.learning_rate is not None:
            return self.learning_rate
        if self.stage == "projector":
            return 1e-3
        return 2e-4 if self.lora else 1e-5

    @property
    def files(self) -> tuple[str, ...]:
        """The data files as named."""
        return (self.data,) if isinstance(self.data, str) else self.data
