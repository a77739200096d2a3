"""`skipvision plan`: what a prompt will cost under a setting, beside all tokens; from a config alone."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer

from skipvision.commands.output import print_json, print_table

if TYPE_CHECKING:
    from skipvision.method.flops import DecoderShape
    from skipvision.method.plan import SkipPlan

CONVENTIONS = {
    "causal": "prefill FLOPs (causal)",
    "dense": "prefill FLOPs (dense)",
    "paper": "prefill FLOPs (paper)",
}


def plan(
    model: Annotated[
        str | None, typer.Option(help="Checkpoint folder, config.json or hub id. Default: the model that ships.")
    ] = None,
    skip: Annotated[
        str, typer.Option(help="R/S such as 100/156, uniform:64, off, or auto: what the checkpoint carries.")
    ] = "auto",
    text_tokens: Annotated[int, typer.Option(min=0, help="Tokens of the prompt beside the image.")] = 100,
    output_tokens: Annotated[int, typer.Option(min=1, help="Tokens of the answer.")] = 128,
    images: Annotated[int, typer.Option(min=0, help="Images in the prompt.")] = 1,
    image_size: Annotated[
        str, typer.Option(help="Height x width of each, for models that cut images into tiles.")
    ] = "672x672",
    bytes_per_value: Annotated[int, typer.Option(min=1, help="Bytes of one key or value: 2 for bf16.")] = 2,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Count tokens, FLOPs and KV bytes of one prompt, with their ratio to all tokens. Needs no weights."""
    from skipvision.families.checkpoint import check_vision_side, choose_skip, read_config, visual_tokens
    from skipvision.method.flops import DecoderShape
    from skipvision.method.plan import SkipConfig, plan_prompt

    config = read_config(model)
    chosen = choose_skip(skip, config)
    check_vision_side(chosen, config)
    shape = DecoderShape.from_config(config.text_config.to_dict())
    tokens = [visual_tokens(config, _size(image_size))] * images
    costs = [
        cost(
            shape,
            plan_prompt(wish, text_tokens=text_tokens, visual_tokens=tokens),
            output_tokens=output_tokens,
            bytes_per_value=bytes_per_value,
        )
        for wish in (chosen, SkipConfig())
    ]
    bill = compare(*costs) | {
        "model": model or "zoo",
        "skip": chosen.describe(),
        "text_tokens": text_tokens,
        "output_tokens": output_tokens,
        "bytes_per_value": bytes_per_value,
    }
    print_json(bill) if json else _print_bill(bill)


def cost(shape: DecoderShape, plan: SkipPlan, *, output_tokens: int, bytes_per_value: int) -> dict[str, Any]:
    """Tokens by fate, operations under each convention, and KV bytes when decoding starts, of one prompt."""
    from skipvision.method.flops import Convention, decode_flops, kv_bytes, prefill_flops

    return {
        "tokens": {
            "visual": plan.visual_tokens,
            "retained": plan.retained_tokens,
            "skipped": plan.skipped_tokens,
            "merged": plan.merged_tokens,
            "dropped": plan.dropped_tokens,
            "summary": plan.summary_tokens,
            "prompt": plan.prompt_tokens,
            "ffn": plan.ffn_tokens,
            "cached": plan.cached_tokens,
        },
        "prefill_flops": {name: prefill_flops(shape, plan, convention=name) for name in get_args(Convention)},
        "decode_flops": decode_flops(shape, cached_tokens=plan.cached_tokens, output_tokens=output_tokens),
        "kv_bytes": kv_bytes(shape, plan.cached_tokens, bytes_per_value=bytes_per_value),
    }


def compare(spent: dict[str, Any], all_tokens: dict[str, Any]) -> dict[str, Any]:
    """`spent` with the ratio of each of its costs to that of all tokens, and the latter beside it."""
    return spent | {
        "all_tokens": all_tokens,
        "prefill_ratio": {
            name: _ratio(flops, all_tokens["prefill_flops"][name]) for name, flops in spent["prefill_flops"].items()
        },
        "decode_ratio": _ratio(spent["decode_flops"], all_tokens["decode_flops"]),
        "kv_ratio": _ratio(spent["kv_bytes"], all_tokens["kv_bytes"]),
    }


def _ratio(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def _print_bill(bill: dict[str, Any]) -> None:
    whole = bill["all_tokens"]
    rows = [
        (f"{name} tokens", f"{count:,}", f"{whole['tokens'][name]:,}", _share(_ratio(count, whole["tokens"][name])))
        for name, count in bill["tokens"].items()
    ]
    rows += [
        (
            label,
            _giga(bill["prefill_flops"][name]),
            _giga(whole["prefill_flops"][name]),
            _share(bill["prefill_ratio"][name]),
        )
        for name, label in CONVENTIONS.items()
    ]
    rows += [
        (
            f"decode FLOPs ({bill['output_tokens']} tokens)",
            _giga(bill["decode_flops"]),
            _giga(whole["decode_flops"]),
            _share(bill["decode_ratio"]),
        ),
        (
            f"KV cache ({bill['bytes_per_value']} bytes a value)",
            _mebi(bill["kv_bytes"]),
            _mebi(whole["kv_bytes"]),
            _share(bill["kv_ratio"]),
        ),
    ]
    title = f"{bill['model']}: one prompt with {bill['text_tokens']} text tokens"
    print_table(title, ("", f"skip {bill['skip']}", "all tokens", "ratio"), rows)


def _size(text: str) -> tuple[int, int]:
    """`672x1008` -> (672, 1008)."""
    found = re.fullmatch(r"([1-9]\d{0,5})x([1-9]\d{0,5})", text.strip())
    if found is None:
        raise typer.BadParameter(f"the image size must be HEIGHTxWIDTH in pixels, such as 672x1008; got {text!r}")
    return int(found[1]), int(found[2])


def _share(ratio: float | None) -> str:
    return "–" if ratio is None else f"{ratio:.3f}"


def _giga(flops: int) -> str:
    return f"{flops / 1e9:,.3f} G"


def _mebi(size: int) -> str:
    return f"{size / 2**20:,.2f} MiB"
