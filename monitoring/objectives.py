"""What the service promises: how many requests it answers, and how soon it begins to.

A request counts for or against the promise when the service owed it an answer: those that were wrong, limited or given
up by whoever asked count neither way. The alerts in `rules/` hold it to the same; a test compares them.
"""

from __future__ import annotations

AVAILABILITY = 0.999
"""Share of the requests that an answer is owed to, and that get one."""

LATENCY_SHARE = 0.99
LATENCY_SECONDS = 1.0
"""That share of the requests has its first token within so many seconds of an engine's having it; one of the bounds of
the histogram."""

OWED = ("200", "500", "503")
FAILED = ("500", "503")
"""HTTP statuses of requests that were owed an answer, and of those that got none."""
