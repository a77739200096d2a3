"""Let the published torchvision be imported beside a CPU build of torch.

Its operators are linked to CUDA and cannot be loaded there. It says so nowhere but describes two of them to torch all
the same, which torch refuses. Run by `make bench-peers` with the environment's own interpreter, and only there; images
are resized without these operators. Where torchvision has its operators nothing is changed.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

OPERATORS = ("nms", "qnms")


def mended(source: str) -> str:
    """torchvision's `_meta_registrations.py` with the two descriptions left out where the operators are not there.

    Raises:
        SystemExit: the source is not what this was written for.
    """
    for operator in OPERATORS:
        describe = f'@torch.library.register_fake("torchvision::{operator}")\n'
        if describe not in source:
            raise SystemExit(f"torchvision describes {operator} otherwise than expected; pin the version that it did")
        guarded = f"{describe.strip().removeprefix('@')} if torchvision.extension._has_ops() else lambda fake: fake"
        source = source.replace(describe, f"@({guarded})\n")
    return source


def main() -> None:
    """Mend the torchvision of this interpreter, unless that was done."""
    spec = find_spec("torchvision")
    if spec is None or spec.origin is None:
        raise SystemExit("torchvision is not installed here")
    file = Path(spec.origin).with_name("_meta_registrations.py")
    source = file.read_text()
    if "_has_ops() else lambda fake: fake" not in source:
        file.write_text(mended(source))


if __name__ == "__main__":
    main()
