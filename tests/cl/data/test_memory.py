"""The rehearsal memory: who is kept, who is drawn, and what it costs."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import chi2

from cl import snapshot
from cl.checkpoint import load_state, load_tensors, save_tensors
from cl.data import ArrayDataset, Batch, Memory
from cl.data.memory import Rehearsal, rank_within
from cl.errors import ConfigurationError, DataError


def numbered(labels: Iterable[int], side: int = 1) -> ArrayDataset:
    """Image n shows the number n in each of its pixels."""
    targets = np.array(list(labels), dtype=np.int64)
    images = np.arange(len(targets), dtype=np.uint8)[:, None, None, None]
    return ArrayDataset.of(np.broadcast_to(images, (len(targets), side, side, 3)), targets)


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def filled(memory: Memory, data: ArrayDataset, batch: int, seed: int = 0) -> Memory:
    """The memory after all of `data` was offered to it in batches."""
    random = generator(seed)
    memory.begin(len(data))
    for positions in torch.arange(len(data)).split(batch):
        memory.add(data, positions.numpy(), random)
    return memory


def held(memory: Memory) -> list[int]:
    """The numbers of the images in the memory."""
    return memory.images[:, 0, 0, 0].tolist()


@pytest.mark.parametrize("batch", [1, 7, 40])
def test_every_image_is_kept_with_the_same_probability(batch: int) -> None:
    """χ² over the images: (n − 1)/n Σ (kept − rM/n)² / (r M/n (1 − M/n)) has n − 1 degrees of freedom."""
    n, size, repeats = 40, 12, 300
    data, kept = numbered([0] * n), np.zeros(n)
    for seed in range(repeats):
        inside = held(filled(Memory(size), data, batch, seed))
        assert len(set(inside)) == size
        kept[inside] += 1
    expected = repeats * size / n
    statistic = (n - 1) / n * ((kept - expected) ** 2).sum() / (expected * (1 - size / n))
    assert chi2.ppf(0.001, n - 1) < statistic < chi2.ppf(0.999, n - 1)


def test_pairs_are_kept_together_as_often_as_by_simple_random_sampling() -> None:
    """P(both of two images) = M(M − 1) / n(n − 1), also for two of one batch and of different ones."""
    n, size, repeats = 10, 4, 2000
    together = np.zeros((n, n))
    for seed in range(repeats):
        inside = np.isin(np.arange(n), held(filled(Memory(size), numbered([0] * n), 5, seed)))
        together += np.outer(inside, inside)
    share = size * (size - 1) / (n * (n - 1))
    deviation = 4.5 * np.sqrt(share * (1 - share) / repeats)
    off = together[~np.eye(n, dtype=bool)] / repeats
    assert np.abs(off - share).max() < deviation


def test_class_balanced_levels_the_classes_and_is_uniform_within_each() -> None:
    """Of 5, 20 and 40 images, 24 places hold 5, 9 or 10, and 9 or 10; each of the 40 equally often."""
    labels = ([2] * 40) + ([0] * 5) + ([1] * 20)
    data, kept, repeats = numbered(labels), np.zeros(len(labels)), 600
    for seed in range(repeats):
        memory = filled(Memory(24, filling="class_balanced"), data, 8, seed)
        counts = np.bincount(memory.labels, minlength=3)
        assert counts[0] == 5
        assert sorted(counts[1:]) == [9, 10]
        kept[held(memory)] += 1
    large = kept[:40]
    share = large.sum() / (40 * repeats)
    # Between classes the number kept varies by one, which adds nothing to this statistic's mean.
    statistic = ((large - large.mean()) ** 2).sum() / (repeats * share * (1 - share))
    assert chi2.ppf(0.001, 39) < statistic < chi2.ppf(0.999, 39)


def test_images_and_labels_stay_together_and_are_copies() -> None:
    data = ArrayDataset.of(numbered(range(30)).images.copy(), np.arange(30))
    memory = filled(Memory(10), data, 4)
    assert held(memory) == memory.labels.tolist()
    before = held(memory)
    data.images[:] = 99
    assert held(memory) == before


def test_the_draw_is_without_replacement_and_uniform() -> None:
    memory, times = filled(Memory(12), numbered(range(12)), 12), np.zeros(12)
    for seed in range(600):
        sample = memory.draw(5, generator(seed))
        assert len(set(sample.labels.tolist())) == 5
        assert sample.images[:, 0, 0, 0].tolist() == sample.labels.tolist()
        times[sample.labels] += 1
    expected = 600 * 5 / 12
    statistic = 11 / 12 * ((times - expected) ** 2).sum() / (expected * (1 - 5 / 12))
    assert chi2.ppf(0.001, 11) < statistic < chi2.ppf(0.999, 11)
    assert len(memory.draw(100, generator(0)).labels) == 12
    assert len(Memory(5).draw(3, generator(0)).labels) == 0


def test_the_current_batch_is_excluded_but_its_positions_in_older_data_are_not() -> None:
    memory = filled(Memory(100), numbered(range(6)), 2)
    current = np.array([1, 4])
    assert set(memory.draw(100, generator(0), current).labels.tolist()) == {0, 2, 3, 5}
    memory.begin(6)
    assert len(memory.draw(100, generator(0), current).labels) == 6


def test_an_image_enters_once_unless_repeats_are_asked_for() -> None:
    data, everything = numbered(range(8)), np.arange(8)
    once, again = Memory(100), Memory(100, repeats=True)
    for memory in (once, again):
        memory.begin(8)
        for epoch in range(3):
            memory.add(data, everything, generator(epoch))
    assert sorted(held(once)) == list(range(8))
    assert len(again) == 24


def test_logits_of_different_widths_are_padded_with_zeros() -> None:
    memory = Memory(100)
    memory.begin(4)
    memory.add(numbered(range(4)), np.arange(4), generator(0), torch.full((4, 2), 1.5))
    memory.begin(3)
    memory.add(numbered(range(3)), np.arange(3), generator(1), torch.full((3, 5), 2.5))
    sample = memory.draw(100, generator(0))
    rows = sorted(sample.logits.tolist())
    assert rows == [[1.5, 1.5, 0, 0, 0]] * 4 + [[2.5] * 5] * 3


def test_a_budget_in_bytes_holds_also_when_the_logits_become_wider() -> None:
    data, random = numbered(range(60), side=4), generator(0)
    memory = Memory(2000, unit="bytes")
    sizes = []
    for classes in (1, 10, 40):
        memory.begin(60)
        memory.add(data, np.arange(60), random, torch.randn(60, classes))
        image = 4 * 4 * 3 + 2 * 8 + 4 * classes
        assert memory.stored_bytes <= 2000
        assert len(memory) == memory.capacity == 2000 // image
        assert memory.stored_bytes == len(memory) * image
        assert held(memory) == memory.labels.tolist()
        sizes.append(len(memory))
    assert sizes == [29, 19, 8]


def test_nothing_fits() -> None:
    memory = filled(Memory(0), numbered(range(5)), 2)
    assert len(memory) == memory.stored_bytes == 0


@pytest.mark.parametrize("filling", ["reservoir", "class_balanced"])
def test_a_saved_memory_goes_on_where_it_was(filling: str, tmp_path: Path) -> None:
    first, second = numbered([n % 3 for n in range(30)]), numbered([n % 5 for n in range(30)])
    memory = filled(Memory(9, filling=filling), first, 4)
    save_tensors(memory.state_dict(), tmp_path / "memory.safetensors")
    opened = Memory(9, filling=filling)
    load_state(
        opened, load_tensors(tmp_path / "memory.safetensors"), tmp_path / "memory.safetensors"
    )
    for each in (memory, opened):
        filled(each, second, 4, seed=1)
    for name, tensor in memory.state_dict().items():
        assert torch.equal(tensor, opened.state_dict()[name]), name
    assert memory.labels.max() > 2, "the second data set has come in"


def test_images_of_another_size_are_refused() -> None:
    memory = filled(Memory(9), numbered(range(3)), 3)
    with pytest.raises(DataError, match="Resize them to one size"):
        filled(memory, numbered(range(3), side=2), 3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"size": -1}, "memory=-1"),
        ({"size": 1, "unit": "byte"}, "Did you mean bytes"),
        ({"size": 1, "filling": "ring"}, "filling=ring"),
    ],
)
def test_values_out_of_range(arguments: dict[str, int], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        Memory(**arguments)  # type: ignore[arg-type]


def test_a_rehearsal_memory_offers_and_recalls_as_the_plain_one_and_forgets_the_data() -> None:
    data, plain, rehearsal = numbered([0, 1] * 4), Memory(5), Rehearsal(5)
    chance = generator(3)
    rehearsal.open(data, generator(3))
    plain.begin(len(data))
    for part in (np.arange(4), np.arange(4, 8)):
        batch = Batch(torch.zeros(4, 3, 1, 1), torch.zeros(4, dtype=torch.int64), part)
        expected = plain.draw(2, chance, exclude=part)
        recalled = rehearsal.recall(2, batch)
        assert all(torch.equal(a, b) for a, b in zip(recalled, expected, strict=True))
        plain.add(data, part, chance)
        rehearsal.offer(batch)
    assert held(rehearsal) == held(plain)
    rehearsal.close()
    with pytest.raises(AssertionError, match="over"):
        rehearsal.offer(batch)


def test_rank_within() -> None:
    assert rank_within(torch.tensor([7, 3, 7, 7, 3, 0])).tolist() == [0, 0, 1, 2, 1, 0]
    assert rank_within(torch.tensor([], dtype=torch.int64)).tolist() == []


def texts(count: int, length: int = 5) -> ArrayDataset:
    """Text n consists of token ids around 30000 · n + 1, which no byte can hold."""
    ids = 30000 * np.arange(count, dtype=np.int32)[:, None] + np.arange(length, dtype=np.int32) + 1
    return ArrayDataset.of(ids, np.arange(count, dtype=np.int64) % 3)


def test_token_ids_are_stored_as_they_are_and_come_back_from_a_file(tmp_path: Path) -> None:
    data, memory = texts(6), Memory(4)
    filled(memory, data, 2)
    assert memory.images.dtype == torch.int32
    drawn = memory.draw(4, generator(0))
    stored = {tuple(row) for row in data.images.tolist()}
    assert len({tuple(row) for row in drawn.images.tolist()} & stored) == 4
    save_tensors(memory.state_dict(), tmp_path / "memory.safetensors")
    again = Memory(4)
    load_state(
        again, load_tensors(tmp_path / "memory.safetensors"), tmp_path / "memory.safetensors"
    )
    assert torch.equal(again.images, memory.images)
    filled(again, data, 3)
    assert again.images.dtype == torch.int32


def test_token_ids_survive_a_snapshot_taken_before_anything_was_stored() -> None:
    memory, fresh = filled(Memory(4), texts(6), 2), Memory(4)
    snapshot.put_tensors(fresh, snapshot.take_tensors(memory))
    assert fresh.images.dtype == torch.int32
    assert torch.equal(fresh.images, memory.images)


def test_bytes_count_what_a_token_id_takes() -> None:
    memory = filled(Memory(3 * (5 * 4 + 8 + 8), unit="bytes"), texts(6), 2)
    assert len(memory) == 3
    assert memory.stored_bytes == 3 * (5 * 4 + 8 + 8)


def test_inputs_of_another_type_are_refused_not_cast() -> None:
    memory = filled(Memory(4), texts(6), 2)
    other = ArrayDataset(np.zeros((2, 1, 1, 3), np.uint8), np.zeros(2, np.int64), np.arange(2))
    with pytest.raises(DataError, match="one size"):
        filled(memory, other, 2)
    memory.images = memory.images.new_zeros(len(memory), 1, 1, 3)
    with pytest.raises(DataError, match="holds int32 and was offered uint8"):
        filled(memory, other, 2)
