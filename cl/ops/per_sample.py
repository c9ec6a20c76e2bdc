"""Each image's own gradient of a loss, for many images at once.

The backward pass over a batch knows, for a linear layer with inputs a_b (T × in) and output gradients g_b
(T × out), each image's gradient: it is g_bᵀ a_b. Usually their sum is formed; here each of them is, at
the same cost, where one pass per image costs many times that.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode

from cl.ops.per_sample_rules import RESHAPES, RULES, Use

LossOfLogits = Callable[[Tensor, Tensor], Tensor]
Receive = Callable[[str, Tensor], None]

IMAGES = 32
"""In one pass: enough to keep the matrix products large, few enough for their activations to fit."""

NUMBERS = 2**19
"""Of single images' gradients formed at a time, so that they stay in the processor's cache."""


class PerSampleGradients:
    """Calls `receive(name, gradients)`, some images at a time, with every image's own gradients.

    gradients: B × the parameter's shape; over all calls once for each image and trainable parameter.
    objective: logits (1 × classes) and label (1) to a scalar. numbers: how many numbers of single images'
    gradients may be held at once.

    Each image's logits must not depend on the other images, as in evaluation mode. Parameters that are
    used once, by an operation in `RULES`, take one backward pass together. All others (shared ones, or in
    operations that have no rule) are vectorised over images by torch.func: as exact, but slow.
    """

    def __init__(
        self, model: nn.Module, objective: LossOfLogits, receive: Receive, numbers: int
    ) -> None:
        self.model, self.objective, self.receive = model, objective, receive
        self.numbers = numbers
        self.weights = {n: p for n, p in model.named_parameters() if p.requires_grad}
        self.quick: Collection[str] | None = None

    def __call__(self, images: Tensor, labels: Tensor) -> None:
        """Pass on the gradients of these images."""
        with torch.compiler.set_stance("force_eager"):  # operations are watched one by one
            if self.quick is None:
                # An operation whose first dimension is 1 here and B there has the images in it.
                self.quick = self._watch(images[:1], self.weights)[0].used
            for some, targets in zip(
                torch.split(images, IMAGES), torch.split(labels, IMAGES), strict=True
            ):
                left = self._one_pass(some, targets)
                if left:
                    self._vectorised(left, some, targets)

    def _watch(self, images: Tensor, names: Collection[str]) -> tuple[Taps, Tensor]:
        weights = {name: self.weights[name] for name in names}
        taps = Taps(weights, len(images), self.receive, min(NUMBERS, self.numbers))
        with torch.enable_grad(), taps:
            logits = self.model(images)
        return taps, logits

    def _one_pass(self, images: Tensor, labels: Tensor) -> list[str]:
        """The gradients of all that the rules cover; returns the names of the other parameters."""
        assert self.quick is not None
        taps, logits = self._watch(images, self.quick)
        if taps.mixing:
            return list(self.weights)
        leaves = reachable_leaves(logits)
        taps.left = {name for leaf in leaves if (name := taps.names.get(id(leaf)))}
        with torch.enable_grad():
            one = vmap(lambda z, y: self.objective(z[None], y[None]))
            if leaves:
                torch.autograd.grad(one(logits, labels).sum(), leaves, allow_unused=True)
        return [name for name in self.weights if name in taps.left or name not in self.quick]

    def _vectorised(self, names: Sequence[str], images: Tensor, labels: Tensor) -> None:
        def of_one_image(theta: dict[str, Tensor], image: Tensor, label: Tensor) -> Tensor:
            logits = functional_call(self.model, theta, (image[None],))
            return self.objective(logits, label[None])

        theta = {name: self.weights[name].detach() for name in names}
        chunk = max(1, self.numbers // max(1, sum(value.numel() for value in theta.values())))
        gradients = vmap(grad(of_one_image), in_dims=(None, 0, 0))
        for some, targets in zip(
            torch.split(images, chunk), torch.split(labels, chunk), strict=True
        ):
            # The fused attention cannot be vectorised over images.
            with torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
                each = gradients(theta, some, targets)
            for name, gradient in each.items():
                self.receive(name, gradient)


class Taps(TorchFunctionMode):
    """Watches a forward pass over `count` images and passes on their own gradients in the backward pass.

    Where a parameter is used by an operation in `RULES` it enters as a constant, and a hook on the output
    computes its gradients. Any other use, and any second one, stays in the autograd graph: the parameter is
    then among the `reachable_leaves` of the logits, and its name must be put into `left` before the
    backward pass.
    """

    def __init__(
        self, weights: Mapping[str, Tensor], count: int, receive: Receive, numbers: int
    ) -> None:
        super().__init__()
        self.weights, self.count, self.receive, self.numbers = weights, count, receive, numbers
        self.names = {id(weight): name for name, weight in weights.items()}
        self.aliases: list[Tensor] = []  # kept, for `names` knows them by their id
        self.used: set[str] = set()
        self.left: set[str] = set()
        self.mixing = False

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if func in RESHAPES and self._is_free(args[0]):
            return self._alias(args[0], func(args[0].detach(), *args[1:], **kwargs))
        if func is F.batch_norm:
            self.mixing |= bool(kwargs.get("training", len(args) > 5 and args[5]))
        uses = RULES[func](*args, **kwargs) if func in RULES else []
        uses = [u for u in uses if self._is_free(u.parameter) and self._per_image(u.saved)]
        if not uses:
            return func(*args, **kwargs)
        constants = {id(use.parameter): use.parameter.detach() for use in uses}
        output = func(
            *(constants.get(id(value), value) for value in args),
            **{key: constants.get(id(value), value) for key, value in kwargs.items()},
        )
        return self._tap(output, uses) if self._per_image([output]) else func(*args, **kwargs)

    def _is_free(self, value: Any) -> bool:
        """Whether it is a parameter that was not used yet."""
        name = self.names.get(id(value))
        return name is not None and name not in self.used

    def _per_image(self, tensors: Sequence[Tensor]) -> bool:
        return all(t.ndim and len(t) == self.count for t in tensors)

    def _alias(self, parameter: Tensor, reshaped: Tensor) -> Tensor:
        """The same numbers in another shape: a leaf that stands for the parameter."""
        self.aliases.append(reshaped.requires_grad_())
        self.names[id(reshaped)] = self.names[id(parameter)]
        return reshaped

    def _tap(self, output: Tensor, uses: Sequence[Use]) -> Tensor:
        named = [(self.names[id(use.parameter)], use) for use in uses]
        self.used.update(name for name, _ in named)
        kept = [
            (name, use.gradients, [(t.detach(), t._version) for t in use.saved], use.work)
            for name, use in named
        ]
        if not output.requires_grad:
            output = output.requires_grad_().clone()  # a clone, for it may be changed in place
        output.register_hook(partial(self._backward, kept))  # type: ignore[no-untyped-call]
        return output

    def _backward(self, kept: Sequence[Any], g: Tensor) -> None:
        for name, gradients, saved, work in kept:
            if name in self.left:
                continue
            if any(tensor._version != version for tensor, version in saved):
                raise RuntimeError(f"The input of the operation of {name} was changed in place.")
            block = max(1, self.numbers // max(1, work))
            inputs = (g, *(tensor for tensor, _ in saved))
            parts = zip(*(torch.split(tensor, block) for tensor in inputs), strict=True)
            for part in parts:
                each = gradients(*part)
                self.receive(name, each.reshape(len(each), *self.weights[name].shape))


def reachable_leaves(output: Tensor) -> list[Tensor]:
    """The tensors that `output` depends on and whose gradient would be accumulated."""
    leaves, seen, waiting = [], set(), [output.grad_fn]
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if hasattr(node, "variable"):
            leaves.append(node.variable)
        waiting += [before for before, _ in node.next_functions]
    return leaves
