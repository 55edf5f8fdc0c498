"""The joint loss L = L_emo + L_id (paper Eq. 3 to 5)."""

import torch
from torch import Tensor
from torch.nn import functional as F


def emotion_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean cross-entropy of [B, classes] logits against [B] labels (paper Eq. 3)."""
    return F.cross_entropy(logits, labels)


def identity_loss(logits: Tensor, identities: Tensor, supervised: Tensor, alpha: float, gamma: float) -> Tensor:
    """Mean of alpha (1 - p)^gamma (-log p) over the samples with a supervised identity (paper Eq. 4).

    `logits` [B, M] over all M training identities, `identities` [B] in 0..M-1, `supervised` [M] bool: p comes
    from a softmax over the supervised identities alone. A batch without a supervised sample gives 0, and
    p = 1 gives value and gradient 0 for every gamma.
    """
    rows = supervised[identities]
    logp = F.log_softmax(logits[rows].masked_fill(~supervised, -torch.inf), 1)
    logp = logp.gather(1, identities[rows, None])[:, 0]
    rest = -torch.expm1(logp)  # 1 - p, exact also near p = 1
    open_ = rest > 0  # at p = 1 the slope of rest ** gamma may be infinite: a constant there instead
    decay = torch.where(open_, torch.where(open_, rest, 1.0) ** gamma, 1.0 if gamma == 0 else 0.0)
    return alpha * (decay * -logp).sum() / max(len(logp), 1)
