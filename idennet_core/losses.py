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


def emotion_losses(logits: Tensor, labels: Tensor) -> Tensor:
    """`emotion_loss` of each of K members, [K]: logits [K, B, classes] against labels [K, B]."""
    return -F.log_softmax(logits, 2).gather(2, labels[..., None])[..., 0].mean(1)


def identity_losses(logits: Tensor, identities: Tensor, supervised: Tensor, alpha: Tensor, gamma: Tensor) -> Tensor:
    """`identity_loss` of each of K members, [K]: of logits [K, B, M] and identities [K, B], `supervised` [K, M].

    M is the most identities that a member has. What is not supervised is masked out, so that no shape depends on it.
    """
    chosen = supervised.gather(1, identities)
    among = logits.masked_fill(~supervised[:, None], -torch.inf)
    logp = F.log_softmax(torch.where(chosen[..., None], among, 0.0), 2).gather(2, identities[..., None])[..., 0]
    rest = -torch.expm1(logp)
    open_ = rest > 0
    power = torch.where(open_, rest, 1.0) ** gamma[:, None]
    decay = torch.where(open_, power, (gamma == 0).to(logits.dtype)[:, None])
    terms = torch.where(chosen, decay * -logp, 0.0)
    return alpha * terms.sum(1) / chosen.sum(1).clamp_min(1)
