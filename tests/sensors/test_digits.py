"""Digits of a forecast."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamer.sensors.digits import rounded, shown


@pytest.mark.parametrize(
    ("value", "width", "text"),
    [
        (101325.0, 6, "101325.0"),
        (12345.6, 0.1, "12345.60"),
        (1e8, 10, "100000000"),
        (19.4523, 0.06, "19.452"),
        (-0.4, 100, "0"),
        (0.0, 0, "0"),
        (5.0, 0, "5.000"),
        (1e20, 1e18, "1.000e+20"),
        (1e-7, 1e-8, "1.00e-07"),
        (float("nan"), 1, ""),
    ],
)
def test_what_people_are_shown(value: float, width: float, text: str) -> None:
    assert shown(value, width) == text


@given(st.floats(-1e12, 1e12), st.floats(1e-3, 1e6), st.integers(-20, 20))
def test_four_digits_of_the_width_are_kept(middle: float, width: float, power: int) -> None:
    curve = np.array([[middle - width, middle, middle + width]]) * 10.0**power
    made = rounded(curve)
    assert np.abs(made - curve).max() <= max(2e-3 * width * 10.0**power, 1e-13 * np.abs(curve).max())


def test_large_values_with_a_small_spread_keep_their_digits() -> None:
    assert rounded(np.array([1e8 - 5, 1e8, 1e8 + 5.1234])).tolist() == [1e8 - 5, 1e8, 1e8 + 5.12]


def test_noise_of_float32_is_not_written() -> None:
    assert rounded(np.array([[20.4, 20.9, 21.4]], np.float32)).tolist() == [[20.4, 20.9, 21.4]]
    assert rounded(np.array([[20.4] * 3], np.float32)).tolist() == [[20.4] * 3]


def test_rows_do_not_know_of_each_other_and_what_is_no_number_stays() -> None:
    curves = np.array([[np.nan, 1, 2], [1.23456789, 2.0, 3.0], [np.inf, np.inf, np.inf], [0, 0, 0]])
    made = rounded(curves)
    assert np.array_equal(made[[0, 2, 3]], curves[[0, 2, 3]], equal_nan=True)
    assert made[1].tolist() == rounded(curves[1:2])[0].tolist() == [1.235, 2, 3]
