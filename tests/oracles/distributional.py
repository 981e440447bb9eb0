"""Losses of distributions in float64 NumPy, one atom and one pair of quantiles after another."""

import numpy as np


def softmax(logits):
    weights = np.exp(logits - np.max(logits, axis=-1, keepdims=True))
    return weights / weights.sum(axis=-1, keepdims=True)


def project(probabilities, returns, atoms):
    """Algorithm 1 of Bellemare et al. 2017, by floor and ceiling instead of distances."""
    found = np.zeros(len(atoms))
    step = (atoms[-1] - atoms[0]) / (len(atoms) - 1)
    for probability, value in zip(probabilities, returns, strict=True):
        place = (min(max(value, atoms[0]), atoms[-1]) - atoms[0]) / step
        # What lies on an atom up to rounding lies on it.
        place = round(place) if abs(place - round(place)) < 1e-9 else place
        low, high = int(np.floor(place)), int(np.ceil(place))
        if low == high:
            found[low] += probability
        else:
            found[low] += probability * (high - place)
            found[high] += probability * (place - low)
    return found


def cross_entropy(logits, target):
    """The loss, and its derivative by the logits."""
    p = softmax(logits)
    return -np.sum(target * np.log(p)), np.sum(target) * p - target


def quantile_huber(quantiles, levels, targets, delta):
    """The loss, and its derivative by the quantiles."""
    loss, slope = 0.0, np.zeros(len(quantiles))
    for i, (quantile, level) in enumerate(zip(quantiles, levels, strict=True)):
        for target in targets:
            error = target - quantile
            weight = (1 - level if error < 0 else level) / len(targets)
            if abs(error) <= delta:
                loss, slope[i] = loss + weight * error**2 / 2, slope[i] - weight * error
            else:
                loss += weight * delta * (abs(error) - delta / 2)
                slope[i] -= weight * delta * np.sign(error)
    return loss, slope
