from __future__ import annotations

import torch
from torch.nn import functional as F

from cl.ops.prototypes import class_means, own_subspace_weights, synthesise

TASKS = torch.tensor([0, 0, 1, 1, 1, 2])


def random_prototypes() -> torch.Tensor:
    return torch.randn(6, 3, 4, generator=torch.Generator().manual_seed(0))


def test_synthesised_prototypes_are_the_formula_class_by_class() -> None:
    W = random_prototypes()
    filled = synthesise(W, TASKS)
    for c, task in enumerate(TASKS.tolist()):
        for k in range(3):
            if k <= task:
                assert torch.equal(filled[c, k], W[c, k])
                continue
            others = [j for j in range(6) if TASKS[j] >= k]
            similarity = torch.stack(
                [F.cosine_similarity(W[c, task], W[j, task], dim=0) for j in others]
            )
            share = similarity.exp() / similarity.exp().sum()
            expected = sum(s * W[j, k] for s, j in zip(share, others, strict=True))
            torch.testing.assert_close(filled[c, k], expected)


def test_what_stood_in_the_blocks_to_fill_does_not_matter() -> None:
    W = random_prototypes()
    once = synthesise(W, TASKS)
    torch.testing.assert_close(synthesise(once, TASKS), once)


def test_with_one_measured_class_its_prototype_is_taken() -> None:
    filled = synthesise(random_prototypes(), TASKS)
    for c in range(5):
        torch.testing.assert_close(filled[c, 2], random_prototypes()[5, 2])


def test_without_temperature_an_equal_classs_prototype_is_taken() -> None:
    W = random_prototypes()
    W[3, 0] = 2 * W[1, 0]  # class 3 of task 1 looks like class 1 of task 0 in subspace 0
    filled = synthesise(W, TASKS, temperature=1e-4)
    torch.testing.assert_close(filled[1, 1], W[3, 1])
    assert not torch.allclose(synthesise(W, TASKS)[1, 1], W[3, 1], atol=0.1)


def test_class_means_of_several_features_at_once() -> None:
    features = torch.tensor([[[1.0], [3.0], [5.0]], [[2.0], [4.0], [0.0]]])
    means = class_means(features, torch.tensor([2, 2, 0]), 3)
    assert means.squeeze(2).tolist() == [[5.0, 0.0, 2.0], [0.0, 0.0, 3.0]]


def test_weights_are_one_in_the_own_subspace() -> None:
    expected = [[1.0, 0.5], [1.0, 0.5], [0.5, 1.0]]
    assert own_subspace_weights(torch.tensor([0, 0, 1]), 2, 0.5).tolist() == expected
