"""The same matrix gives what each framework's own code gave for it."""

from __future__ import annotations

import numpy as np
import pytest

from cl import metrics
from cl.errors import ConfigurationError

R = np.array([[90, 5, 4, 3], [70, 88, 6, 5], [75, 60, 85, 7], [72, 65, 50, 80]], dtype=float)
IMPROVING = np.array([[50, np.nan, np.nan], [60, 70, np.nan], [65, 75, 80]])


@pytest.mark.parametrize(
    ("framework", "kind", "expected"),
    [
        ("textbook", "max_prev", 25.333),
        ("mammoth", "max_all", 25.333),
        ("PILOT", "max_all", 25.333),
        ("l2p-pytorch", "max_all", 25.333),
        ("renate", "max_before", 25.333),
        ("continuum master", "max_prev", 25.333),
        ("continuum 1.2.7", "without_previous", 13.667),
        ("CODA-Prompt", "stepwise", 14.167),
        ("LibContinual", "without_previous", 13.667),
        ("Avalanche", "first", 25.333),
    ],
)
def test_forgetting_of_each_framework(framework: str, kind: str, expected: float) -> None:
    assert metrics.forgetting(R, kind) == pytest.approx(expected, abs=5e-4), framework


@pytest.mark.parametrize(
    ("framework", "kind", "expected"),
    [
        ("textbook", "last", -25.333),
        ("mammoth, renate", "last", -25.333),
        ("continuum", "all_pairs", -23.167),
        ("LibContinual", "without_newest_pair", -9.333),
    ],
)
def test_backward_transfer_of_each_framework(framework: str, kind: str, expected: float) -> None:
    assert metrics.backward_transfer(R, kind) == pytest.approx(expected, abs=5e-4), framework


def test_the_other_figures_of_the_table() -> None:
    assert metrics.average_accuracy(R) == pytest.approx(66.75)
    assert metrics.average_incremental_accuracy(R) == pytest.approx(77.271, abs=5e-4)
    assert metrics.learning_accuracy(R) == pytest.approx((90 + 88 + 85 + 80) / 4)
    assert metrics.forward_transfer(R, np.ones(4)) == pytest.approx(5.0)
    assert metrics.forward_transfer(R, None, "no_baseline") == pytest.approx(6.0)


def test_micro_average_counts_images() -> None:
    images = np.array([1.0, 1.0, 2.0, 0.0])
    assert metrics.average_accuracy(R, images) == pytest.approx((72 + 65 + 2 * 50) / 4)


def test_improving_stream() -> None:
    assert metrics.forgetting(IMPROVING) == pytest.approx(-5.0)
    assert metrics.forgetting(IMPROVING, "max_all") == 0.0
    assert metrics.backward_transfer(IMPROVING) == pytest.approx(10.0)


def test_the_last_row_of_a_library_that_drops_the_previous_task_is_zero_after_two() -> None:
    assert metrics.forgetting(R[:2, :2], "without_previous") == 0.0


def test_undefined_is_none_and_not_zero() -> None:
    single = np.array([[0.5]])
    assert metrics.forgetting(single) is None
    assert metrics.backward_transfer(single) is None
    assert metrics.forward_transfer(single, np.zeros(1)) is None
    assert metrics.forward_transfer(IMPROVING, np.zeros(3)) is None
    assert metrics.forward_transfer(R, None) is None


def test_unknown_variant_names_the_nearest() -> None:
    with pytest.raises(ConfigurationError, match="max_prev"):
        metrics.forgetting(R, "max_prv")
