"""How much better a token or a completion was than expected. Pure functions over tensors.

Shapes: N completions of up to T tokens. Where a tensor is (N, T), `mask` (N, T) is 1 on the completion's tokens, its
end-of-turn token included, and 0 on the padding after it; results are 0 there.
"""

from __future__ import annotations

import torch
from torch import Tensor


def token_rewards(scores: Tensor, kl: Tensor, mask: Tensor, beta: float) -> Tensor:
    """−β·KL at every token, and the score (N,) on top at the last one; gives (N, T).

    Source: Ouyang et al. 2022, eq. 2, token by token; kl (N, T) in nats.
    """
    rewards = -beta * kl * mask
    last = mask.sum(1).long().clamp(min=1) - 1  # (N,)
    rewards[torch.arange(len(rewards), device=rewards.device), last] += scores
    return rewards


def generalized_advantages(
    rewards: Tensor, values: Tensor, mask: Tensor, gamma: float, lam: float
) -> tuple[Tensor, Tensor]:
    """Advantages and returns, (N, T) each; `values` (N, T) are the critic's before each token.

    δ_t = r_t + γ·V_{t+1} − V_t and A_t = δ_t + γλ·A_{t+1}, with V = A = 0 after the last token; returns are A + V.
    Source: Schulman et al. 2016 (arXiv 1506.02438), eq. 11, 12 and 16.
    """
    values = values * mask
    advantages = torch.zeros_like(rewards)
    following = torch.zeros_like(rewards[:, 0])  # A_{t+1}, (N,)
    next_values = torch.zeros_like(following)
    for t in reversed(range(rewards.shape[1])):
        delta = rewards[:, t] + gamma * next_values - values[:, t]
        following = (delta + gamma * lam * following) * mask[:, t]
        next_values = values[:, t]
        advantages[:, t] = following
    return advantages, advantages + values


def rewards_to_go(rewards: Tensor, mask: Tensor, gamma: float) -> Tensor:
    """Σ_{s ≥ t} γ^{s−t}·r_s, (N, T): the advantages of a method without a critic."""
    returns, _ = generalized_advantages(rewards, torch.zeros_like(rewards), mask, gamma, 1.0)
    return returns


def group_advantages(scores: Tensor, group_size: int) -> Tensor:
    """Scores less their group's mean, over its standard deviation; a group is `group_size` neighbours. (N,) → (N,)

    A group whose scores are all equal teaches nothing and gives 0.
    Source: Shao et al. 2024 (arXiv 2402.03300), section 4.1.2; the deviation is the sample's, as in TRL.
    """
    groups = scores.view(-1, group_size)  # (prompts, samples)
    centred = groups - groups.mean(1, keepdim=True)
    return (centred / (groups.std(1, keepdim=True) + 1e-4)).view(-1)


def whiten(values: Tensor, mask: Tensor) -> Tensor:
    """Shifted and scaled to mean 0 and variance 1 over all tokens of the mask."""
    mean = masked_mean(values, mask)
    variance = masked_mean((values - mean) ** 2, mask)
    return (values - mean) * torch.rsqrt(variance + 1e-8) * mask


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    return (values * mask).sum() / mask.sum().clamp(min=1)


def explained_variance(predictions: Tensor, targets: Tensor, mask: Tensor) -> Tensor:
    """1 − Var(target − prediction) / Var(target): 1 is a perfect critic, 0 one that knows the mean only."""

    def variance(values: Tensor) -> Tensor:
        return masked_mean((values - masked_mean(values, mask)) ** 2, mask)

    return 1 - variance(targets - predictions) / variance(targets).clamp(min=1e-8)


def clipped_policy_loss(log_ratio: Tensor, advantages: Tensor, clip_range: float) -> tuple[Tensor, Tensor]:
    """Loss of each token, and whether clipping took its gradient away; any shape.

    −min(ρ·A, clip(ρ, 1 − ε, 1 + ε)·A) with ρ = exp(log_ratio). Source: Schulman et al. 2017 (arXiv 1707.06347), eq. 7.
    """
    ratio = torch.exp(log_ratio)
    clipped = -advantages * ratio.clamp(1 - clip_range, 1 + clip_range)
    unclipped = -advantages * ratio
    return torch.maximum(unclipped, clipped), clipped > unclipped


def clipped_value_loss(values: Tensor, old_values: Tensor, returns: Tensor, clip_range: float) -> Tensor:
    """½·max((V − R)², (clip(V, V_old ± ε) − R)²) of each token: the critic, too, moves by small steps."""
    near = old_values + (values - old_values).clamp(-clip_range, clip_range)
    return 0.5 * torch.maximum((values - returns) ** 2, (near - returns) ** 2)
