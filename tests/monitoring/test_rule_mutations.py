"""The tests of the rules notice what may be wrong with one: any comparison, name, half, matcher, number or wait."""

from __future__ import annotations

import pytest

from tests.monitoring.mutations import COARSE, FINE, mutations
from tests.monitoring.promtool import Bench
from tests.monitoring.rule_files import ALL, TOLD


@pytest.mark.parametrize("name", TOLD)
def test_an_alert_that_compares_wrongly_or_reads_what_there_is_not_fails_its_tests(name, tmp_path):
    assert unnoticed(name, COARSE, tmp_path) == []


@pytest.mark.slow
@pytest.mark.parametrize("name", ALL)
def test_nothing_is_wrong_with_a_rule_unnoticed(name, tmp_path):
    assert unnoticed(name, FINE, tmp_path) == []


def unnoticed(name, changes, folder):
    """What may be wrong with a rule while its tests pass."""
    bench = Bench(ALL[name], folder)
    assert bench.passes(ALL[name]), "alone, and unchanged"
    tried = {what: bench.passes(mutated) for what, mutated in mutations(ALL[name], changes)}
    assert tried
    return [what for what, passed in tried.items() if passed]
