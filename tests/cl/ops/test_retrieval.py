from __future__ import annotations

import torch
from torch import Tensor

from cl.ops.retrieval import refine

TASKS = torch.tensor([0, 1, 2, 2])


class Table:
    """Logits by image and task, and a note of how many images were asked each time."""

    def __init__(self, answers: list[list[int]]) -> None:
        """answers: for each image, the best class under each of the three tasks."""
        self.logits = torch.nn.functional.one_hot(torch.tensor(answers), 4).float()
        self.logits += 0.1 * torch.arange(3)[:, None]  # to tell the tasks apart
        self.asked: list[int] = []

    def __call__(self, rows: Tensor, tasks: Tensor) -> Tensor:
        self.asked.append(len(rows))
        return self.logits[rows, tasks]


def test_it_stops_at_a_fixed_point() -> None:
    """0 says task 1, 1 says task 2, 2 says task 2."""
    table = Table([[1, 3, 2]])
    logits = refine(torch.tensor([0]), TASKS, table, rounds=4)
    assert table.asked == [1, 1, 1]
    assert torch.equal(logits[0], table.logits[0, 2])


def test_a_cycle_of_two_stops_after_the_last_round() -> None:
    table = Table([[1, 0, 0]])
    logits = refine(torch.tensor([0]), TASKS, table, rounds=4)
    assert table.asked == [1, 1, 1, 1]
    assert torch.equal(logits[0], table.logits[0, 1]), "asked as 0, 1, 0, 1"


def test_when_all_agree_one_round_is_enough() -> None:
    table = Table([[0, 0, 0], [1, 1, 1], [3, 3, 2]])
    refine(torch.tensor([0, 1, 2]), TASKS, table, rounds=4)
    assert table.asked == [3]


def test_images_do_not_disturb_each_other_and_settled_ones_are_not_asked_again() -> None:
    answers = [[1, 3, 2], [1, 0, 0], [0, 0, 0], [2, 2, 3]]
    first = torch.tensor([0, 0, 0, 1])
    table = Table(answers)
    together = refine(first, TASKS, table, rounds=4)
    assert table.asked == [4, 3, 2, 1]
    alone = [
        refine(first[i : i + 1], TASKS, Table([answer]), rounds=4)[0]
        for i, answer in enumerate(answers)
    ]
    assert torch.equal(together, torch.stack(alone))
