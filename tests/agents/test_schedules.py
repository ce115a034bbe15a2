import pytest

from replaystore_agents.trunk.schedules import apex_epsilon


def test_apex_epsilons_are_those_of_the_paper() -> None:
    # Horgan et al. 2018: epsilon = 0.4, alpha = 7
    assert [apex_epsilon(i, 3) for i in range(3)] == pytest.approx([0.4, 0.4**4.5, 0.4**8])
    assert apex_epsilon(0, 1) == 0.4
    assert apex_epsilon(9, 3) == apex_epsilon(2, 3)
