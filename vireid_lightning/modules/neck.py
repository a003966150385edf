"""The batch normalisation between metric losses and classifiers."""

from __future__ import annotations

from torch import nn

from vireid_lightning.kinds import check_sizes


class BNNeck(nn.BatchNorm1d):
    """BatchNorm1d whose shift starts at 0 and is never trained (Luo et al., CVPRW 2019); a loaded shift is used.

    Metric losses act on what goes in, classifiers and retrieval on what comes out.

    Args:
        num_features: Length D of the (B, D) embeddings.
    """

    def __init__(self, num_features: int) -> None:
        check_sizes(num_features=num_features)
        super().__init__(num_features)
        self.bias.requires_grad_(False)
