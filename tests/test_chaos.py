"""Degradation under load of all five domains; all the faults: `script/bench chaos`."""

import pytest

from bench import chaos, harness


@pytest.mark.slow
def test_what_was_acknowledged_is_there_once_whatever_died():
    with harness.servers(1, is_quick=True) as bench:
        found = {one.id: one for one in chaos.measure(bench)}
    assert all(one.holds for one in found.values()), [
        (one.id, one.value, one.detail) for one in found.values()
    ]
    assert found["chaos_lost"].detail["acknowledged"] > 500
