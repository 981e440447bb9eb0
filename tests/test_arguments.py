"""Kinds of arguments: what they hold, and that looking changes nothing."""

import numpy as np
import pytest

from dqx.arguments import each, instance

NUMBERS = each(instance("a whole number", int), "whole numbers")


@pytest.mark.parametrize("values", [[], [1, 2], (3,), {4, 5}, range(3)])
def test_what_holds_items_of_a_kind_is_taken(values):
    assert NUMBERS.holds(values)


@pytest.mark.parametrize("values", [None, 3, "12", b"12", {1: 2}, [1, "2"], np.array(3)])
def test_all_else_is_refused_without_an_error(values):
    assert not NUMBERS.holds(values)


def test_what_can_be_gone_through_once_is_refused_and_not_used_up():
    once = iter([1, 2])
    assert not NUMBERS.holds(once) and list(once) == [1, 2]
