"""Several Gaussians per class, for classes that are not one cloud."""

from __future__ import annotations

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from cl.ops.gaussians import ClassGaussians


class ClassMixtures(nn.Module):
    """Several Gaussians per class, with variances only, around the centres that k-means finds.

    centres: at most so many for each class, and no more than it has different images. parts: the Gaussian
    of each centre; owners: its class, int64. A class is estimated once, when it comes.
    """

    owners: Tensor

    def __init__(self, features: int, centres: int) -> None:
        super().__init__()
        self.centres = centres
        self.parts = ClassGaussians(features, diagonal=True)
        self.register_buffer("owners", torch.zeros(0, dtype=torch.int64))

    @property
    def means(self) -> Tensor:
        """Of all images of each class: classes × features, float64."""
        classes = int(self.owners.max()) + 1 if len(self.owners) else 0
        counts = self.parts.counts.double()
        sums = self.parts.means.new_zeros(classes, self.parts.means.shape[1])
        sums.index_add_(0, self.owners, counts[:, None] * self.parts.means)
        return sums / counts.new_zeros(classes).index_add_(0, self.owners, counts)[:, None]

    def update(self, features: Tensor, labels: Tensor, classes: int) -> None:
        """Add the classes of these images. features: n × features. labels: n. classes: known afterwards."""
        from sklearn.cluster import KMeans  # only with centres: it would slow every other start

        for label in sorted(set(labels.tolist())):
            own = features[labels == label].double()
            different: Tensor = own.unique(dim=0)  # type: ignore[no-untyped-call]
            before, added = len(self.parts), min(self.centres, len(different))
            nearest = KMeans(added, n_init=1, random_state=0).fit_predict(own.cpu())
            place = before + torch.from_numpy(nearest).long().to(labels.device)
            self.parts.update(own, place, before + added)
            self.owners = F.pad(self.owners, (0, added), value=label)

    def roots(self) -> Tensor:
        """The standard deviations of each part; float32."""
        return self.parts.roots()

    def sample(
        self, count: int, generator: Generator, roots: Tensor, mean_scale: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """As `ClassGaussians.sample`; a centre is drawn as often as it has images."""
        owned = F.one_hot(self.owners).T * self.parts.counts
        parts = torch.multinomial(owned.double().cpu(), count, True, generator=generator).flatten()
        labels = self.owners.cpu()[parts]
        order = torch.randperm(len(parts), generator=generator)
        parts, labels = parts[order].to(roots.device), labels[order].to(roots.device)
        means = self.parts.means
        if mean_scale is not None:
            means = means * mean_scale[self.owners, None]
        noise = torch.randn(len(parts), roots.shape[1], generator=generator).to(roots)
        return noise * roots[parts] + means[parts].to(roots), labels
