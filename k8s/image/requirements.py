"""Print what a project needs, with some of its extras: `requirements.py pyproject.toml EXTRA...`, for `pip install -r`.

pip itself takes them only together with the project, whose every change would then install everything anew.
"""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path
from typing import Any


def requirements(project: dict[str, Any], extras: list[str]) -> list[str]:
    """What stands in `dependencies` and in the extras; an extra that names another of the project's brings it along.

    Raises:
        KeyError: there is no such extra.
    """
    found: dict[str, None] = dict.fromkeys(project["dependencies"])
    left, seen = list(extras), set[str]()
    while left:
        extra = left.pop(0)
        if extra in seen:
            continue
        seen.add(extra)
        for each in project["optional-dependencies"][extra]:
            if own := re.fullmatch(rf"{re.escape(project['name'])}\[(.+)\]", each):
                left += re.split(r"\s*,\s*", own[1])
            else:
                found[each] = None
    return list(found)


if __name__ == "__main__":
    print(*requirements(tomllib.loads(Path(sys.argv[1]).read_text())["project"], sys.argv[2:]), sep="\n")
