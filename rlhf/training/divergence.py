"""How far one model's next-token distribution is from another's, in nats. Pure functions over tensors.

KL(π ‖ ref) at a token is Σ_v π(v)·log(π(v)/ref(v)) over the vocabulary. The estimators need only the token that was
sampled from π; the full sum is exact, but over a large vocabulary it costs memory, so it is taken over the reference's
likeliest tokens.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

KLEstimator = Literal["k1", "k2", "k3", "top_k"]


def sampled_kl(log_probs: Tensor, ref_log_probs: Tensor, estimator: KLEstimator) -> Tensor:
    """KL(π ‖ ref) estimated from tokens sampled from π, whose log-probabilities under the two these are; any shape.

    With r = ref/π: k1 = −log r is unbiased, of high variance and often negative; k2 = ½·(log r)² is biased; k3 =
    (r − 1) − log r is unbiased and never negative. Source: Schulman 2020, "Approximating KL divergence".
    """
    log_ratio = ref_log_probs - log_probs
    if estimator == "k1":
        return -log_ratio
    if estimator == "k2":
        return log_ratio**2 / 2
    if estimator == "k3":
        return torch.exp(log_ratio) - 1 - log_ratio
    raise ValueError(f"{estimator} is not computed from sampled tokens")


def top_k_kl(logits: Tensor, ref_logits: Tensor, k: int) -> Tensor:
    """KL(π ‖ ref) over the k largest reference logits, each side normalised over these; (…, V) twice → (…).

    Never negative, 0 where the two agree on these tokens, and the exact KL where k covers the vocabulary.
    Source: Baichuan Alignment Technical Report (arXiv 2410.14940), section 2.1, which takes k = 500.
    """
    top = ref_logits.topk(min(k, ref_logits.shape[-1]), dim=-1)  # (…, k)
    ref = torch.log_softmax(top.values.float(), dim=-1)
    policy = torch.log_softmax(logits.gather(-1, top.indices).float(), dim=-1)
    # Rounding can leave −1e-9 where the two are equal.
    return (policy.exp() * (policy - ref)).sum(-1).clamp(min=0)


def token_log_probs(logits: Tensor, tokens: Tensor) -> Tensor:
    """log π of the tokens, (…, V) and (…) → (…)."""
    chosen = logits.gather(-1, tokens.unsqueeze(-1)).squeeze(-1).float()
    return chosen - torch.logsumexp(logits.float(), dim=-1)


def entropy(logits: Tensor) -> Tensor:
    """Of the whole distribution, (…, V) → (…)."""
    log_probs = torch.log_softmax(logits.float(), dim=-1)
    return -(log_probs.exp() * log_probs).sum(-1)
