"""`python -m monitoring.dashboards` writes every board to `generated/`, and removes what is no board any more."""

from __future__ import annotations

from monitoring.dashboards import GENERATED
from monitoring.dashboards.boards import generated_texts


def main() -> None:
    GENERATED.mkdir(exist_ok=True)
    texts = generated_texts()
    for path in GENERATED.glob("*.json"):
        if path.stem not in texts:
            path.unlink()
    for uid, text in texts.items():
        (GENERATED / f"{uid}.json").write_text(text)
        print(f"{uid}: {len(text) // 1024} KiB")


if __name__ == "__main__":
    main()
