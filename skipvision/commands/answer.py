"""`skipvision answer`: one question about one image, answered here and now."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Annotated

import typer

from skipvision.commands.output import print_json, say


def answer(
    image: Annotated[Path, typer.Argument(help="JPEG, PNG, WebP, GIF, BMP or TIFF file.")],
    question: Annotated[str, typer.Argument(help="What to ask about it.")],
    model: Annotated[
        str | None, typer.Option(help="Checkpoint folder or hub id. Default: the model that ships.")
    ] = None,
    skip: Annotated[
        str, typer.Option(help="R/S such as 100/156, uniform:64, off, or auto: what the checkpoint carries.")
    ] = "auto",
    max_tokens: Annotated[int, typer.Option(min=1, help="Longest answer, in tokens.")] = 128,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Answer a question about one image; the answer alone goes to stdout."""
    from skipvision.engine import Engine, Request, Sampling
    from skipvision.images import read_image

    rgb = read_image(image)
    with closing(Engine.load(model, skip=skip)) as engine:
        pixels = engine.prepare(rgb)
        [given] = engine.answer([Request(prompt=question, images=(pixels,), sampling=Sampling(max_tokens=max_tokens))])
        chosen = engine.skip.describe()
    plan = given.plan
    if json:
        print_json(
            {
                "answer": given.text,
                "finish_reason": given.finish_reason,
                "skip": chosen,
                "text_tokens": plan.text_tokens,
                "visual_tokens": plan.visual_tokens,
                "retained_tokens": plan.retained_tokens,
                "skipped_tokens": plan.skipped_tokens,
                "merged_tokens": plan.merged_tokens,
                "dropped_tokens": plan.dropped_tokens,
                "summary_tokens": plan.summary_tokens,
                "cached_tokens": plan.cached_tokens,
                "output_tokens": len(given.output_ids),
                "seconds": given.seconds,
            }
        )
        return
    print(given.text)
    dropped = f", {plan.dropped_tokens} dropped" if plan.dropped_tokens else ""
    say(
        f"{plan.visual_tokens} visual tokens: {plan.retained_tokens} retained, {plan.skipped_tokens} skipped, "
        f"{plan.merged_tokens} merged{dropped}; {given.seconds:.2f} s"
    )
