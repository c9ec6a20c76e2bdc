"""Where L2P reads: nearest class mean on the class token, and on the outputs at untrained prompts.

    CL_DATA_DIR=… CL_WEIGHTS_DIR=… python benchmarks/prompt_readout.py

L2P gives its head the mean of the outputs at the prompt tokens. The prompts start at random; how much of the
backbone's knowledge can be read there before anything is trained? 30 training and 10 test images of each
class of CIFAR-100, prompts of three seeds.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jobs import compose
from torch import Tensor

from benchmarks.subset import cifar100
from cl.data import ArrayDataset, batches
from cl.learner import Learner
from cl.models.heads import PrototypeHead
from strategies.l2p import L2P

BACKBONES = (("backbone=nano",), ("backbone=vit_tiny", "backbone.image_size=96"))
SEEDS = (0, 1, 2)

Encode = Callable[[Tensor], Tensor]


@torch.no_grad()
def accuracy(learner: Learner, train: ArrayDataset, test: ArrayDataset, encode: Encode) -> float:
    """Of the cosine to the class means of the features that `encode` gives, in per cent."""
    head, device = PrototypeHead(learner.model.features), torch.device("cpu")
    head.grow(100)
    for batch in batches(train, learner.model.transform, 100, device):
        head.update(encode(batch.images), batch.labels)
    right = sum(
        int((head(encode(batch.images)).argmax(1) == batch.labels).sum())
        for batch in batches(test, learner.model.transform, 100, device)
    )
    return 100 * right / len(test)


def main() -> None:
    """A line per backbone."""
    stream = cifar100(training=30, test=10, tasks=1)
    data = stream.train[0], stream.test[0]
    for backbone in BACKBONES:
        found = []
        for seed in SEEDS:
            learner = Learner(compose("strategy=l2p", f"seed={seed}", *backbone), stream.info)
            learner.model.eval()
            assert isinstance(learner.strategy, L2P)
            read = learner.strategy.read
            found.append(accuracy(learner, *data, lambda images, read=read: read(images)[0]))
        plain = accuracy(learner, *data, learner.model.backbone)
        shown = ", ".join(f"{value:.1f}" for value in found)
        print(f"{backbone[0]}: class token {plain:.1f} %, prompt outputs {shown} %", flush=True)


if __name__ == "__main__":
    main()
