"""Permutation recovery: find the order in which an image's stripes were shuffled."""

from __future__ import annotations

import torch
from torch import Tensor

from vireid_lightning.errors import VIReIDError
from vireid_lightning.losses.arguments import check_setting
from vireid_lightning.precision import in_float32


@in_float32
def sinkhorn(logits: Tensor, *, rounds: int = 20, temperature: float = 1.0) -> Tensor:
    """Turn square matrices of scores into (nearly) doubly stochastic ones by Sinkhorn's normalisation.

    The rows and then the columns of exp(logits / temperature) are divided by their sums, ``rounds`` times. This is done
    on logarithms, where each division is a log-softmax, so that nothing overflows. The columns of the result sum to 1
    up to rounding. Its rows do so in the limit; scores that differ by much more than the temperature take more rounds.

    Args:
        logits: (..., d, d) of any floating type; computed in float32, also under autocast (float64 for float64).
        rounds: How many times rows and columns are normalised, 1 or more.
        temperature: Divisor of the logits, above 0; towards 0 the result tends to a permutation matrix.

    Returns:
        (..., d, d), entries in [0, 1].

    Raises:
        VIReIDError: If the matrices are not square, ``rounds`` is below 1 or the temperature not above 0.

    Example:
        >>> sinkhorn(torch.tensor([[9.0, 0.0], [0.0, 9.0]])).round()
        tensor([[1., 0.],
                [0., 1.]])
    """
    if logits.ndim < 2 or logits.shape[-1] != logits.shape[-2]:
        raise VIReIDError(f"sinkhorn needs square matrices (..., d, d) and got the shape {tuple(logits.shape)}.")
    check_setting("rounds", rounds, 1, whole=True)
    check_setting("temperature", temperature, above=True)
    logarithm = logits / temperature
    for _ in range(rounds):
        logarithm = logarithm.log_softmax(-1).log_softmax(-2)
    return logarithm.exp()


@in_float32
def permutation_recovery_loss(logits: Tensor, order: Tensor, *, rounds: int = 20, temperature: float = 1.0) -> Tensor:
    """Compare recovered with true orders of stripes: the permutation recovery loss (Wan et al., TIFS 2023).

    It is the mean squared error between P_hat = ``sinkhorn(logits)`` and the true permutation matrix P, where P[i, s]
    is 1 if place i of the shuffled image shows stripe s, and 0 otherwise. It lies in [0, 2 / d]: 0 if every order is
    recovered with certainty, (d - 1) / d^2 if all entries of P_hat are 1 / d.

    Args:
        logits: (B, d, d), scores of "place i shows stripe s". Any floating type; computed in float32 at least.
        order: (B, d) int64, the stripe that each place shows; each row is a permutation of 0 to d - 1.
        rounds: How many times Sinkhorn's normalisation is applied, 1 or more.
        temperature: Divisor of the logits in Sinkhorn's normalisation, above 0.

    Returns:
        A scalar, float32 (float64 for float64 logits); 0, with gradients of 0, for an empty batch.

    Raises:
        VIReIDError: If the shapes do not fit together.

    Example:
        >>> order = torch.tensor([[2, 0, 1]])
        >>> permutation_recovery_loss(50 * permutation_matrix(order), order).item() < 1e-6
        True
    """
    if logits.ndim != 3 or logits.shape[:2] != order.shape:
        raise VIReIDError(
            f"permutation_recovery_loss needs logits (B, d, d) and orders (B, d), and got {tuple(logits.shape)} and "
            f"{tuple(order.shape)}."
        )
    soft = sinkhorn(logits, rounds=rounds, temperature=temperature)
    # A sum: the mean of an empty batch would be NaN.
    return (soft - permutation_matrix(order).to(soft)).square().sum() / max(soft.numel(), 1)


def permutation_matrix(order: Tensor) -> Tensor:
    """Return the 0/1 matrices P (B, d, d) int64 of orders (B, d): P[b, i, s] = 1 where ``order[b, i]`` is s."""
    # F.one_hot reads the largest value first.
    return (order.unsqueeze(-1) == torch.arange(order.shape[-1], device=order.device)).long()


def recover_order(soft: Tensor) -> Tensor:
    """Return the most likely order under each soft permutation matrix, by exact linear assignment.

    Args:
        soft: (B, d, d), as :func:`sinkhorn` returns them.

    Returns:
        (B, d) int64 on the same device: the permutation with the largest sum of entries. Waits for the device once.
    """
    from scipy.optimize import linear_sum_assignment  # not needed to train

    matrices = soft.detach().double().cpu().numpy()
    orders = [torch.from_numpy(linear_sum_assignment(matrix, maximize=True)[1]) for matrix in matrices]
    return torch.stack(orders).to(soft.device) if orders else torch.empty(soft.shape[:2], dtype=torch.long)
