"""`skipvision exercises`: rendered pictures with questions and answers, as data to train on."""

from __future__ import annotations

import json
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from skipvision.commands.output import say
from skipvision.errors import ConfigError

if TYPE_CHECKING:
    from skipvision.exercises import Exercise


def exercises(
    output: Annotated[Path, typer.Argument(help="A folder for samples.jsonl and the pictures, or one .parquet file.")],
    count: Annotated[int, typer.Option(min=1, help="Pictures.")] = 1000,
    first: Annotated[int, typer.Option(min=0, help="How many training pictures to leave out before.")] = 0,
    strata: Annotated[list[str] | None, typer.Option(help="Kinds, in turn; repeat it. Default: all.")] = None,
    questions: Annotated[int, typer.Option(min=1, help="About each picture, at most.")] = 3,
    side: Annotated[int, typer.Option(min=16, help="Pixels of each side.")] = 224,
) -> None:
    """Write training exercises in LLaVA's conversation format; held-out ones are never among them."""
    from skipvision.exercises import STRATA, TRAINING_SEEDS
    from skipvision.exercises import exercises as about_one_picture

    names = strata or [*STRATA]
    if unknown := [name for name in names if name not in STRATA]:
        raise ConfigError(f"there is no stratum {unknown[0]!r}; there are {', '.join(STRATA)}")
    if output.exists():
        raise ConfigError(f"{output} exists already; name one that does not")
    drawn = (
        about_one_picture(names[at % len(names)], seed, questions=questions)
        for at, seed in enumerate(TRAINING_SEEDS[first : first + count])
    )
    if output.suffix == ".parquet":
        _write_table(output, drawn, side)
    else:
        _write_folder(output, drawn, side)
    say(f"{count} pictures with their questions are in {output}; train on them with skipvision tune")


def _write_folder(output: Path, drawn: Iterator[tuple[Exercise, ...]], side: int) -> None:
    (output / "pictures").mkdir(parents=True)
    with (output / "samples.jsonl").open("w", encoding="utf-8") as file:
        for asked in drawn:
            path = f"pictures/{_name(asked)}.png"
            asked[0].picture.render(side).save(output / path)
            file.write(json.dumps({"id": _name(asked), "image": path, "conversations": _conversation(asked)}) + "\n")


def _write_table(output: Path, drawn: Iterator[tuple[Exercise, ...]], side: int) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    turn = pa.struct([("from", pa.string()), ("value", pa.string())])
    schema = pa.schema([("id", pa.string()), ("image", pa.binary()), ("conversations", pa.list_(turn))])
    with pq.ParquetWriter(output, schema) as writer:
        rows: list[dict[str, Any]] = []
        for asked in drawn:
            picture = BytesIO()
            asked[0].picture.render(side).save(picture, "PNG")
            rows.append({"id": _name(asked), "image": picture.getvalue(), "conversations": _conversation(asked)})
            if len(rows) == 1000:
                writer.write_table(pa.Table.from_pylist(rows, schema))
                rows = []
        if rows:
            writer.write_table(pa.Table.from_pylist(rows, schema))


def _name(asked: tuple[Exercise, ...]) -> str:
    return f"{asked[0].stratum}-{asked[0].seed}"


def _conversation(asked: tuple[Exercise, ...]) -> list[dict[str, str]]:
    """Questions about one picture as turns, the picture before the first."""
    turns = []
    for at, each in enumerate(asked):
        turns.append({"from": "human", "value": each.question if at else f"<image>\n{each.question}"})
        turns.append({"from": "gpt", "value": each.answer})
    return turns
