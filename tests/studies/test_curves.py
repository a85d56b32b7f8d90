"""Numbers of one curve."""

from __future__ import annotations

import math

import pytest

from fedecho.objectives.base import Metric
from fedecho.studies.curves import area, default_target, reached
from studies.results import ACCURACY, PERPLEXITY, curve


def test_the_area_is_the_mean_over_virtual_time() -> None:
    assert area(curve((0, 0.0), (10, 1.0)), 10, "accuracy") == pytest.approx(0.5)
    assert area(curve((0, 0.0), (10, 1.0)), 5, "accuracy") == pytest.approx(0.25), "up to half way it is a quarter"
    assert area(curve((0, 0.0), (10, 1.0), (40, 1.0)), 40, "accuracy") == pytest.approx((5 + 30) / 40)
    assert area(curve((2, 0.4), (4, 0.6)), 4, "accuracy") == pytest.approx(0.5), "from the first evaluation, not from 0"
    assert area(curve((0, 0.0), (10, 1.0)), 1000, "accuracy") == pytest.approx(0.5), (
        "nothing is assumed beyond the last"
    )
    assert math.isnan(area(curve((0, 0.5)), 10, "accuracy"))
    assert area(curve((0, 4.0), (10, 2.0), name="loss"), 10, "loss") == pytest.approx(3.0)
    assert math.isnan(area(curve((0, 4.0), (10, 2.0)), 10, "loss")), "a run without this metric"


def test_the_target_is_reached_at_the_first_evaluation_that_is_as_good() -> None:
    points = curve((0, 0.1), (3, 0.8), (5, 0.7), (9, 0.9))
    assert reached(points, 0.8, ACCURACY) == (10, 3.0)
    assert reached(points, 0.81, ACCURACY) == (30, 9.0)
    assert reached(points, 0.95, ACCURACY) is None
    falling = curve((0, 50.0), (3, 8.0), (5, 9.0), (9, 4.0), name="perplexity")
    assert reached(falling, 8.0, PERPLEXITY) == (10, 3.0)
    assert reached(falling, 5.0, PERPLEXITY) == (30, 9.0)
    assert reached(falling, 3.0, PERPLEXITY) is None


def test_the_untrained_model_reaches_no_target() -> None:
    assert reached(curve((0, 0.9), (3, 0.8), (5, 0.95)), 0.85, ACCURACY) == (20, 5.0)


def test_the_default_target_is_five_percent_short_of_the_best() -> None:
    r2 = Metric("r2", "R²", "share of the variance that is explained", True)
    assert default_target(ACCURACY, 0.90) == pytest.approx(0.85), "rounded down to a whole percent"
    assert default_target(PERPLEXITY, 10.0) == pytest.approx(10.5)
    assert default_target(PERPLEXITY, 123.456) == pytest.approx(130.0), "rounded up to three digits"
    assert default_target(r2, 0.5) == pytest.approx(0.475)
    assert default_target(r2, -0.1) is None
    assert default_target(PERPLEXITY, math.inf) is None
