"""Schedules as functions of progress: closed forms at the places that matter."""

import pytest

from trivium.errors import ConfigError
from trivium.training.schedule import ScheduleConfig, rate_factor

NAMES = ("constant", "linear", "cosine", "wsd", "inverse_square_root")
MIDDLE = {"constant": 1.0, "linear": 0.5, "cosine": 0.5, "wsd": 1.0, "inverse_square_root": (0.1 / 0.55) ** 0.5}
END = {"constant": 1.0, "linear": 0.0, "cosine": 0.0, "wsd": 0.0, "inverse_square_root": 0.1**0.5}


@pytest.mark.parametrize("name", NAMES)
def test_the_places_that_matter(name: str) -> None:
    config = ScheduleConfig(name=name, warmup=0.1, decay=0.25)  # type: ignore[arg-type]
    assert rate_factor(config, 0.0) == 0.01  # never nothing
    assert rate_factor(config, 0.05) == pytest.approx(0.5)
    assert rate_factor(config, 0.1) == pytest.approx(1.0)
    assert rate_factor(config, 0.55) == pytest.approx(MIDDLE[name])
    assert rate_factor(config, 1.0) == pytest.approx(END[name], abs=1e-12)
    factors = [rate_factor(config, 0.1 + 0.9 * step / 100) for step in range(101)]
    assert factors == sorted(factors, reverse=True)


def test_wsd_decays_over_its_share() -> None:
    config = ScheduleConfig(name="wsd", decay=0.2, floor=0.1)
    assert rate_factor(config, 0.8) == pytest.approx(1.0)
    assert rate_factor(config, 0.9) == pytest.approx(0.55)
    assert rate_factor(config, 1.0) == pytest.approx(0.1)


@pytest.mark.parametrize("name", NAMES)
def test_beyond_the_end_nothing_goes_negative(name: str) -> None:
    assert rate_factor(ScheduleConfig(name=name), 1.3) >= 0.0  # type: ignore[arg-type]


def test_no_warm_up_starts_at_the_peak() -> None:
    for name in NAMES:
        assert rate_factor(ScheduleConfig(name=name, warmup=0.0), 0.0) == pytest.approx(1.0)  # type: ignore[arg-type]


def test_impossible_shares_are_refused() -> None:
    with pytest.raises(ConfigError, match="expected shares of the budget"):
        ScheduleConfig(warmup=1.5)
