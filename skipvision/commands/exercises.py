"""`skipvision exercises`: rendered pictures with questions and answers, as data to train on or a sheet to look at."""

from __future__ import annotations

import json
from collections.abc import Iterator
from io import BytesIO
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from skipvision.commands.output import say
from skipvision.errors import ConfigError

if TYPE_CHECKING:
    from skipvision.exercises import Exercise

Format = Literal["llava", "messages"]
MOST_ON_A_SHEET = 200
"""Pictures; more than that nobody looks at, and viewers refuse them."""


def exercises(
    output: Annotated[
        Path,
        typer.Argument(help="A folder for samples.jsonl and the pictures, one .parquet file, or a .png to look at."),
    ],
    count: Annotated[int, typer.Option(min=1, help="Pictures.")] = 1000,
    first: Annotated[int, typer.Option(min=0, help="How many training pictures to leave out before.")] = 0,
    strata: Annotated[list[str] | None, typer.Option(help="Kinds, in turn; repeat it. Default: all.")] = None,
    questions: Annotated[int, typer.Option(min=1, help="About each picture, at most.")] = 3,
    side: Annotated[int, typer.Option(min=16, help="Pixels of each side.")] = 224,
    format: Annotated[Format, typer.Option(help="How conversations are written.")] = "llava",
) -> None:
    """Write training exercises as conversations; held-out ones are never among them."""
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
    match output.suffix:
        case ".png":
            _write_sheet(output, drawn, side, count)
        case ".parquet":
            _write_table(output, drawn, side, format)
        case _:
            _write_folder(output, drawn, side, format)
    say(f"{count} pictures with their questions are in {output}")


def _write_sheet(output: Path, drawn: Iterator[tuple[Exercise, ...]], side: int, count: int) -> None:
    from skipvision.exercises.contact_sheet import contact_sheet

    if count > MOST_ON_A_SHEET:
        raise ConfigError(f"a sheet holds up to {MOST_ON_A_SHEET} pictures; got --count {count}")
    contact_sheet([*chain.from_iterable(drawn)], side=side).save(output)


def _write_folder(output: Path, drawn: Iterator[tuple[Exercise, ...]], side: int, form: Format) -> None:
    (output / "pictures").mkdir(parents=True)
    with (output / "samples.jsonl").open("w", encoding="utf-8") as file:
        for asked in drawn:
            path = f"pictures/{_name(asked)}.png"
            asked[0].picture.render(side).save(output / path)
            file.write(json.dumps(_sample(asked, path, form)) + "\n")


def _write_table(output: Path, drawn: Iterator[tuple[Exercise, ...]], side: int, form: Format) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    part = pa.struct([("type", pa.string()), ("text", pa.string())])
    columns = {
        "llava": [
            ("image", pa.binary()),
            ("conversations", pa.list_(pa.struct([("from", pa.string()), ("value", pa.string())]))),
        ],
        "messages": [
            ("images", pa.list_(pa.binary())),
            ("messages", pa.list_(pa.struct([("role", pa.string()), ("content", pa.list_(part))]))),
        ],
    }
    schema = pa.schema([("id", pa.string()), *columns[form]])
    with pq.ParquetWriter(output, schema) as writer:
        rows: list[dict[str, Any]] = []
        for asked in drawn:
            picture = BytesIO()
            asked[0].picture.render(side).save(picture, "PNG")
            rows.append(_sample(asked, picture.getvalue(), form))
            if len(rows) == 1000:
                writer.write_table(pa.Table.from_pylist(rows, schema))
                rows = []
        if rows:
            writer.write_table(pa.Table.from_pylist(rows, schema))


def _name(asked: tuple[Exercise, ...]) -> str:
    return f"{asked[0].stratum}-{asked[0].seed}"


def _sample(asked: tuple[Exercise, ...], image: str | bytes, form: Format) -> dict[str, Any]:
    """Questions about one picture, in turns; the picture, encoded or as a path, belongs to the first."""
    if form == "messages":
        return {"id": _name(asked), "images": [image], "messages": _messages(asked)}
    return {"id": _name(asked), "image": image, "conversations": _conversations(asked)}


def _conversations(asked: tuple[Exercise, ...]) -> list[dict[str, str]]:
    turns = []
    for at, each in enumerate(asked):
        turns.append({"from": "human", "value": each.question if at else f"<image>\n{each.question}"})
        turns.append({"from": "gpt", "value": each.answer})
    return turns


def _messages(asked: tuple[Exercise, ...]) -> list[dict[str, Any]]:
    turns = []
    for at, each in enumerate(asked):
        picture = [] if at else [{"type": "image"}]
        turns.append({"role": "user", "content": [*picture, {"type": "text", "text": each.question}]})
        turns.append({"role": "assistant", "content": [{"type": "text", "text": each.answer}]})
    return turns
