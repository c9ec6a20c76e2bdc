"""The mathematics: pure functions on tensors and on `dict[str, Tensor]`."""
