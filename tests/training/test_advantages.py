"""Advantages, clipped losses and KL estimators against values worked out by hand or in NumPy."""

from __future__ import annotations

import numpy as np
import pytest

pytestmark = [pytest.mark.training, pytest.mark.slow]


def test_generalized_advantages_of_three_tokens_by_hand() -> None:
    import torch

    from rlhf.training.advantages import generalized_advantages

    # γ = 0.9, λ = 0.5; the second completion has two tokens, and what stands behind them must not count
    rewards = torch.tensor([[1.0, 0.0, 2.0], [0.5, 1.0, 99.0]])
    values = torch.tensor([[0.5, 1.0, 0.5], [0.0, 2.0, 99.0]])
    mask = torch.tensor([[1.0, 1.0, 1.0], [1.0, 1.0, 0.0]])
    advantages, returns = generalized_advantages(rewards, values, mask, gamma=0.9, lam=0.5)
    # δ = (1 + .9·1 − .5, 0 + .9·.5 − 1, 2 − .5) = (1.4, −.55, 1.5); A_2 = 1.5, A_1 = −.55 + .45·1.5, …
    a1 = -0.55 + 0.45 * 1.5
    expected = [[1.4 + 0.45 * a1, a1, 1.5], [0.5 + 0.9 * 2 + 0.45 * (1 - 2), 1 - 2, 0]]
    np.testing.assert_allclose(advantages, expected, rtol=1e-6)
    np.testing.assert_allclose(returns, np.array(expected) + (values * mask).numpy(), rtol=1e-6)


def test_with_lambda_one_returns_are_the_discounted_rewards_whatever_the_critic_says() -> None:
    import torch

    from rlhf.training.advantages import generalized_advantages, rewards_to_go

    rewards, mask = torch.tensor([[1.0, 2.0, 4.0]]), torch.ones(1, 3)
    _, returns = generalized_advantages(rewards, torch.randn(1, 3), mask, gamma=0.5, lam=1.0)
    np.testing.assert_allclose(returns, [[3.0, 4.0, 4.0]], rtol=1e-6)
    np.testing.assert_allclose(rewards_to_go(rewards, mask, gamma=0.5), [[3.0, 4.0, 4.0]], rtol=1e-6)


def test_the_score_falls_on_the_last_token_and_beta_on_every_one() -> None:
    import torch

    from rlhf.training.advantages import token_rewards

    kl = torch.tensor([[0.1, 0.2, 0.3], [0.4, 0.5, 9.0]])
    mask = torch.tensor([[1.0, 1.0, 1.0], [1.0, 1.0, 0.0]])
    scores = torch.tensor([1.0, -1.0])
    rewards = token_rewards(scores, kl, mask, beta=0.5)
    np.testing.assert_allclose(rewards, [[-0.05, -0.1, 0.85], [-0.2, -1.25, 0.0]], rtol=1e-6)
    doubled = token_rewards(scores, kl, mask, beta=1.0)
    np.testing.assert_allclose(doubled.sum(1) - rewards.sum(1), [-0.3, -0.45], rtol=1e-5)


def test_group_advantages_sum_to_zero_in_each_group_and_an_even_group_gives_none() -> None:
    import torch

    from rlhf.training.advantages import group_advantages

    scores = torch.tensor([1.0, 2.0, 6.0, 4.0, 4.0, 4.0])
    advantages = group_advantages(scores, 3).numpy().reshape(2, 3)
    # mean 3, sample deviation √7
    np.testing.assert_allclose(advantages[0], np.array([-2, -1, 3]) / np.sqrt(7), rtol=1e-3)
    np.testing.assert_allclose(advantages[1], 0)
    np.testing.assert_allclose(advantages.sum(1), 0, atol=1e-6)


def test_whitened_advantages_have_mean_zero_and_variance_one_over_the_mask() -> None:
    import torch

    from rlhf.training.advantages import whiten

    values, mask = torch.tensor([[3.0, 5.0, 100.0], [7.0, 1.0, 9.0]]), torch.tensor([[1.0, 1, 0], [1, 1, 1]])
    white = whiten(values, mask).numpy()
    kept = white[mask.numpy() == 1]
    assert white[0, 2] == 0
    assert kept.mean() == pytest.approx(0, abs=1e-6)
    assert kept.var() == pytest.approx(1, rel=1e-5)


def test_the_clipped_policy_loss_by_hand() -> None:
    import torch

    from rlhf.training.advantages import clipped_policy_loss

    ratio = torch.tensor([1.0, 1.5, 1.5, 0.5, 0.5], requires_grad=True)
    advantages = torch.tensor([2.0, 2.0, -2.0, 2.0, -2.0])
    loss, is_clipped = clipped_policy_loss(ratio.log(), advantages, clip_range=0.2)
    # Clipped only where the step would go on in the direction in which it has gone too far already.
    np.testing.assert_allclose(loss.detach(), [-2.0, -2.4, 3.0, -1.0, 1.6], rtol=1e-6)
    assert is_clipped.tolist() == [False, True, False, False, True]
    loss.sum().backward()
    assert ratio.grad is not None
    np.testing.assert_allclose(ratio.grad, [-2.0, 0.0, 2.0, -2.0, 0.0], atol=1e-6)


def test_the_clipped_value_loss_by_hand() -> None:
    import torch

    from rlhf.training.advantages import clipped_value_loss, explained_variance

    values, old, returns = torch.tensor([1.0, 2.0]), torch.tensor([0.0, 1.9]), torch.tensor([1.0, 1.0])
    # the first moved by 1 and counts as if by 0.2: (0.2 − 1)²/2; the second by 0.1, within the range: 1/2
    np.testing.assert_allclose(clipped_value_loss(values, old, returns, 0.2), [0.32, 0.5], rtol=1e-6)
    mask, targets = torch.ones(4), torch.tensor([1.0, 2.0, 3.0, 4.0])
    assert explained_variance(targets + 7, targets, mask).item() == pytest.approx(1)
    assert explained_variance(torch.zeros(4), targets, mask).item() == pytest.approx(0)


def softmax(logits: np.ndarray) -> np.ndarray:
    shifted = np.exp(logits - logits.max(-1, keepdims=True))
    return shifted / shifted.sum(-1, keepdims=True)


def test_kl_estimators_by_hand_and_in_expectation() -> None:
    import torch

    from rlhf.training.divergence import KLEstimator, sampled_kl, token_log_probs

    estimator: KLEstimator
    log_ratio = np.log(0.5) - np.log(0.25)
    for estimator, expected in (("k1", log_ratio), ("k2", log_ratio**2 / 2), ("k3", 0.5 - 1 + log_ratio)):
        value = sampled_kl(torch.log(torch.tensor(0.5)), torch.log(torch.tensor(0.25)), estimator)
        assert value.item() == pytest.approx(expected, rel=1e-6)

    logits = np.random.default_rng(0).normal(size=(2, 7))
    policy, ref = softmax(logits)
    exact = (policy * np.log(policy / ref)).sum()
    tokens = torch.arange(7)
    log_probs, ref_log_probs = (token_log_probs(torch.tensor(row).expand(7, 7), tokens) for row in logits)
    np.testing.assert_allclose(log_probs, np.log(policy), rtol=1e-5)
    for estimator in ("k1", "k3"):  # unbiased: the mean under the policy is the KL itself
        estimates = sampled_kl(log_probs, ref_log_probs, estimator)
        assert (policy * estimates.numpy()).sum() == pytest.approx(exact, rel=1e-5)
    assert sampled_kl(log_probs, ref_log_probs, "k3").min() >= 0
    assert sampled_kl(log_probs, ref_log_probs, "k1").min() < 0


def test_top_k_kl_is_exact_with_the_whole_vocabulary_and_on_its_subset_and_never_negative() -> None:
    import torch

    from rlhf.training.divergence import entropy, top_k_kl

    generator = np.random.default_rng(1)
    logits, ref_logits = generator.normal(size=(5, 20)) * 3, generator.normal(size=(5, 20)) * 3
    tensors = torch.tensor(logits), torch.tensor(ref_logits)
    policy, ref = softmax(logits), softmax(ref_logits)
    exact = (policy * np.log(policy / ref)).sum(-1)
    for k in (20, 500):
        np.testing.assert_allclose(top_k_kl(*tensors, k=k), exact, rtol=1e-5)
    subset = np.argsort(-ref_logits, axis=-1)[:, :4]
    policy, ref = (softmax(np.take_along_axis(values, subset, -1)) for values in (logits, ref_logits))
    np.testing.assert_allclose(top_k_kl(*tensors, k=4), (policy * np.log(policy / ref)).sum(-1), rtol=1e-5)
    for k in (1, 2, 7, 20):
        assert top_k_kl(*tensors, k=k).min() >= 0
        np.testing.assert_allclose(top_k_kl(tensors[0], tensors[0] + 3, k=k), 0, atol=1e-7)
    np.testing.assert_allclose(entropy(torch.zeros(2, 8)), np.log(8), rtol=1e-6)


def test_the_gradient_of_the_kl_on_chosen_responses_is_zero_at_the_reference_and_leads_back_to_it() -> None:
    import torch

    from rlhf.training.divergence import top_k_kl

    ref = torch.randn(6, 12, generator=torch.Generator().manual_seed(2))
    logits = ref.clone().requires_grad_()
    top_k_kl(logits, ref, k=12).sum().backward()
    assert logits.grad is not None
    np.testing.assert_allclose(logits.grad, 0, atol=1e-6)

    logits = (ref + torch.randn(6, 12, generator=torch.Generator().manual_seed(3))).requires_grad_()
    before = top_k_kl(logits, ref, k=12).mean()
    before.backward()
    assert logits.grad is not None
    # +γ·KL in the loss: a step down the gradient comes nearer to the reference
    after = top_k_kl(logits - 0.5 * logits.grad, ref, k=12).mean()
    assert after < before
