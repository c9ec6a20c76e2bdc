"""Known answers of L2P, DualPrompt and CODA-Prompt."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from cl.errors import ConfigurationError
from cl.learner import Learner
from strategies.coda_prompt import CODAPrompt, component_weights
from strategies.dualprompt import DualPrompt
from strategies.l2p import L2P
from tests.conftest import Compose, toy_stream


def taught(compose: Compose, strategy: str, *overrides: str, experiences: int = 2) -> Learner:
    stream = toy_stream()
    arguments = (f"strategy={strategy}", "trainer.batch_size=8", "trainer.lr=1e-2")
    learner = Learner(compose(*arguments, *overrides), stream.info)
    for index in range(experiences):
        learner.learn(stream.experience(index))
    return learner


def l2p(compose: Compose, *overrides: str, experiences: int = 1) -> L2P:
    small = ("strategy.pool=6", "strategy.top=2", "strategy.length=3")
    strategy = taught(compose, "l2p", *small, *overrides, experiences=experiences).strategy
    assert isinstance(strategy, L2P)
    return strategy


def dual(compose: Compose, *overrides: str, experiences: int = 2) -> DualPrompt:
    strategy = taught(compose, "dualprompt", *overrides, experiences=experiences).strategy
    assert isinstance(strategy, DualPrompt)
    return strategy


def coda(compose: Compose, *overrides: str, experiences: int = 2) -> CODAPrompt:
    small = ("strategy.components=10", "strategy.length=4")
    strategy = taught(compose, "coda_prompt", *small, *overrides, experiences=experiences).strategy
    assert isinstance(strategy, CODAPrompt)
    return strategy


@pytest.mark.parametrize("strategy", ["l2p", "dualprompt", "coda_prompt"])
def test_the_frozen_backbone_keeps_its_bits(compose: Compose, strategy: str) -> None:
    learner = taught(compose, strategy, experiences=0)
    before = {name: tensor.clone() for name, tensor in learner.model.backbone.state_dict().items()}
    learner.learn(toy_stream().experience(0))
    for name, tensor in learner.model.backbone.state_dict().items():
        assert torch.equal(tensor, before[name]), name


@pytest.mark.parametrize("strategy", ["l2p", "dualprompt", "coda_prompt"])
def test_it_learns(compose: Compose, strategy: str) -> None:
    stream = toy_stream()
    pretrained = ("backbone.pretrained=true", "trainer.epochs=20")
    learner = taught(compose, strategy, *pretrained, experiences=1)
    answers = learner.logits(stream.test[0]).argmax(1)
    assert float((answers.numpy() == stream.test[0].targets).mean()) > 0.9


def test_l2p_chooses_the_nearest_keys(compose: Compose) -> None:
    strategy = l2p(compose)
    queries = 3 * strategy.keys.detach()
    chosen, similarity = strategy.choose(queries)
    assert chosen[:, 0].tolist() == list(range(6)), "its own key is the nearest of all"
    torch.testing.assert_close(similarity[:, 0], torch.ones(6))
    expected = F.cosine_similarity(queries, strategy.keys[chosen[:, 1]])
    torch.testing.assert_close(similarity[:, 1], expected)


def test_l2p_trains_only_what_was_chosen_and_turns_keys_without_stretching_them(
    compose: Compose,
) -> None:
    strategy = l2p(compose)
    images = torch.randn(2, 3, 8, 8)
    with torch.no_grad():
        chosen, _ = strategy.choose(strategy.run.model.backbone(images))
    logits, similarity = strategy(images)
    prompts, keys = torch.autograd.grad(
        logits.sum() - similarity.sum(), [strategy.prompts, strategy.keys]
    )
    for index in range(6):
        assert bool(prompts[index].any()) == (index in chosen)
        assert bool(keys[index].any()) == (index in chosen)
    inner = (keys * strategy.keys).sum(1)
    torch.testing.assert_close(inner, torch.zeros(6), rtol=0, atol=1e-5)


def test_l2ps_loss_pulls_the_chosen_keys_to_the_queries(compose: Compose) -> None:
    strategy = l2p(compose, "strategy.pull=0.5")
    batch = next(strategy.batches(toy_stream().experience(0)))
    logits, similarity = strategy(batch.images)
    expected = F.cross_entropy(logits, batch.labels) - 0.5 * similarity.sum() / len(batch.labels)
    torch.testing.assert_close(strategy.loss(batch), expected)


def test_l2p_by_batch_is_a_vote_and_warns(compose: Compose) -> None:
    with pytest.warns(UserWarning, match="selection=batch"):
        strategy = l2p(compose, "strategy.selection=batch", "strategy.top=1")
    queries = strategy.keys.detach()[[4, 2, 4]]
    chosen, similarity = strategy.choose(queries)
    assert chosen.tolist() == [[4], [4], [4]]
    assert similarity[1, 0] < 0.9
    own = F.cosine_similarity(queries, strategy.keys[[4]].expand(3, -1))
    torch.testing.assert_close(similarity[:, 0], own)


@pytest.mark.parametrize("clip", [0.0, 1e-3])
def test_gradients_are_clipped(compose: Compose, clip: float) -> None:
    for strategy in (l2p(compose, f"strategy.clip={clip}"), dual(compose, f"strategy.clip={clip}")):
        parameters = strategy.parameter_groups()[0]["params"]
        for parameter in parameters:
            parameter.grad = torch.ones_like(parameter)
        strategy.after_backward()
        norm = torch.stack([parameter.grad.norm() for parameter in parameters]).norm()
        assert float(norm) == pytest.approx(clip, rel=1e-2) if clip else float(norm) > 10


def test_dualprompt_gives_each_image_its_own_expert(compose: Compose) -> None:
    """What reaches the attention: image b's prefix is E[l, :, idx_b], keys as keys and values as values."""
    strategy = dual(compose, "strategy.general_layers=[0]", "strategy.expert_layers=[1,2,3]")
    seen: list[list[torch.Tensor]] = [[] for _ in strategy.places]
    for place, contents in zip(strategy.places, seen, strict=True):
        place.register_forward_hook(
            lambda module, inputs, output, to=contents: to.append(module.slot.content)
        )
    strategy.choose = lambda queries: torch.tensor([1, 0, 1])  # type: ignore[method-assign]
    with torch.no_grad():
        strategy.predict(torch.randn(3, 3, 8, 8))
    assert all(query_pass is None for query_pass, _ in seen)
    (_, general), *experts = seen
    assert torch.equal(general, strategy.general[0].expand(3, 2, 5, 192))
    assert len(experts) == 3
    for layer, (_, answer_pass) in enumerate(experts):
        assert answer_pass.shape == (3, 2, 5, 192)
        for image, task in enumerate((1, 0, 1)):
            assert torch.equal(answer_pass[image], strategy.kept_experts[task, layer])


def test_dualprompt_finds_the_task_by_its_key(compose: Compose) -> None:
    strategy = dual(compose)
    assert strategy.choose(7 * strategy.kept_keys.flip(0)).tolist() == [1, 0]


def test_dualprompt_keeps_old_experts_and_goes_on_from_them(compose: Compose) -> None:
    strategy, stream = dual(compose, experiences=1), toy_stream()
    first, key, general = (
        tensor.detach().clone() for tensor in (strategy.expert, strategy.key, strategy.general)
    )
    strategy.before_experience(stream.experience(1))
    assert torch.equal(strategy.expert, first), "the new expert starts from the one before"
    assert not torch.equal(strategy.key, key), "the new key does not"
    whole = dual(compose)
    assert torch.equal(whole.kept_experts[0], first)
    assert torch.equal(whole.kept_keys[0], key)
    assert not torch.equal(whole.kept_experts[1], first)
    assert not torch.equal(whole.general, general), "the general prompts change"


def test_the_loss_of_dualprompt(compose: Compose) -> None:
    strategy = dual(compose, "strategy.pull=0.5", experiences=1)
    batch = next(strategy.batches(toy_stream().experience(0)))
    with torch.no_grad():
        queries = strategy.run.model.backbone(batch.images)
        logits = strategy.predict(batch.images)
    similarity = F.cosine_similarity(queries, strategy.kept_keys[0][None]).mean()
    expected = F.cross_entropy(logits, batch.labels) - 0.5 * similarity
    torch.testing.assert_close(strategy.loss(batch).detach(), expected)


def test_coda_starts_orthonormal_beside_what_was_learnt(compose: Compose) -> None:
    strategy = coda(compose, experiences=1)
    strategy.before_experience(toy_stream().experience(1))
    for new, old in zip(strategy.kept_and_current(), strategy.kept(), strict=True):
        rows = new[:, 5:]
        eye = torch.eye(5).expand(4, 5, 5)
        torch.testing.assert_close(rows @ rows.mT, eye, rtol=0, atol=1e-5)
        torch.testing.assert_close(rows @ old.mT, torch.zeros(4, 5, 5), rtol=0, atol=1e-5)


def test_codas_finished_components_keep_their_bits(compose: Compose) -> None:
    first, second = coda(compose, experiences=1), coda(compose, experiences=2)
    for old, both in zip(first.kept(), second.kept(), strict=True):
        assert old.shape[1] == 5
        assert both.shape[1] == 10
        assert torch.equal(both[:, :5], old)


def test_codas_first_task_trains_its_share_of_the_components(compose: Compose) -> None:
    strategy = coda(compose, experiences=0)
    strategy.before_experience(toy_stream().experience(0))
    assert [rows.shape[1] for rows in strategy.kept_and_current()] == [5, 5, 5]


def test_codas_weights_are_cosines(compose: Compose) -> None:
    generator = torch.Generator().manual_seed(0)
    queries, keys, attention = (
        torch.randn(shape, generator=generator) for shape in ((3, 8), (2, 5, 8), (2, 5, 8))
    )
    weights = component_weights(queries, keys, attention)
    attended = queries[:, None] * attention[:, None]
    torch.testing.assert_close(weights, F.cosine_similarity(attended, keys[:, None], dim=-1))
    torch.testing.assert_close(component_weights(5 * queries, keys, attention), weights)
    same = component_weights(queries, F.normalize(queries)[None], torch.ones(1, 3, 8))
    torch.testing.assert_close(same[0].diagonal(), torch.ones(3))


def test_codas_prompt_is_the_weighted_sum_half_keys_half_values(compose: Compose) -> None:
    strategy = coda(compose)
    seen: list[torch.Tensor] = []
    strategy.places[1].register_forward_hook(
        lambda module, inputs, output: seen.append(module.slot.content)
    )
    images = torch.randn(3, 3, 8, 8)
    with torch.no_grad():
        queries = strategy.run.model.backbone(images)
        strategy.predict(images)
    P, K, A = (rows[1] for rows in strategy.kept())
    for image, query in enumerate(queries):
        weights = F.cosine_similarity(query * A, K)
        prompt = sum(w * p for w, p in zip(weights, P, strict=True)).view(4, 192)
        torch.testing.assert_close(seen[-1][image, 0], prompt[:2], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(seen[-1][image, 1], prompt[2:], rtol=1e-4, atol=1e-5)


def test_codas_penalty_is_zero_at_the_start_and_the_formula_later(compose: Compose) -> None:
    strategy = coda(compose, "strategy.orthogonality=2.0", experiences=0)
    strategy.before_experience(toy_stream().experience(0))
    assert torch.as_tensor(strategy.penalty()).item() < 1e-9
    for name in ("prompts", "keys", "attention"):
        strategy.get_parameter(name).data *= 2
    expected = 2.0 * 3 * 4 * (5 * 3.0**2) / 25
    penalty = torch.as_tensor(strategy.penalty())
    assert penalty.item() == pytest.approx(expected, rel=1e-4)
    assert coda(compose, experiences=0).penalty() == 0.0


@pytest.mark.parametrize(
    ("method", "arguments", "message"),
    [
        (L2P, {"pool": 3}, "pool=3"),
        (L2P, {"length": 0}, "length=0"),
        (L2P, {"selection": "task"}, "selection=task"),
        (L2P, {"clip": -1.0}, "clip=-1.0"),
        (DualPrompt, {"expert_layers": (1, 2)}, "expert_layers"),
        (DualPrompt, {"expert_length": 0}, "expert_length=0"),
        (DualPrompt, {"clip": -1.0}, "clip=-1.0"),
        (CODAPrompt, {"length": 3}, "length=3"),
        (CODAPrompt, {"components": 0}, "components=0"),
        (CODAPrompt, {"orthogonality": -1.0}, "orthogonality=-1.0"),
    ],
)
def test_values_out_of_range(method: type, arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        method(**arguments)
