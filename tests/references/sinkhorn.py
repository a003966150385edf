"""Sinkhorn's normalisation as one writes it down: exponentials, divided in turn by the sums of rows and columns."""

from __future__ import annotations

import numpy as np


def sinkhorn_reference(logits, rounds=20):
    """One (d, d) matrix in float64; only for logits whose exponentials float64 can hold."""
    matrix = np.exp(np.asarray(logits, dtype=np.float64))
    for _ in range(rounds):
        for row in range(len(matrix)):
            matrix[row] = matrix[row] / matrix[row].sum()
        for column in range(len(matrix)):
            matrix[:, column] = matrix[:, column] / matrix[:, column].sum()
    return matrix


def permutation_recovery_reference(logits, orders, rounds=20):
    """The squared error of every entry, one at a time."""
    errors = []
    for matrix, order in zip(logits, orders):
        soft = sinkhorn_reference(matrix, rounds)
        for place, stripe in enumerate(order):
            for column in range(len(order)):
                errors.append((soft[place, column] - float(column == stripe)) ** 2)
    return float(np.mean(errors))
