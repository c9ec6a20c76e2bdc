"""The tables: what the blocks of a family of networks are called, and what each layer does by its name.

Patterns are regular expressions for a whole name. To add a family, add a table to `FAMILIES`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

ATTENTION = ("q", "k", "v", "qkv", "kv", "output")
MLP = ("fc1", "fc2", "gate", "up", "down")
CATEGORIES: dict[str, tuple[str, ...]] = {"attention": ATTENTION, "mlp": MLP}
"""Words for several roles; every transformer has both."""

ROLES = (*ATTENTION, *MLP, "conv", "norm", "embedding", "head", "adapter", "other")
"""What a layer or a parameter can be.

qkv, kv: q, k and v (k and v) in one matrix, one below the other. output: the projection behind attention.
fc1, fc2: into and out of the hidden layer of an MLP; gate, up and down are those of a gated one. embedding:
patches, words, positions, class tokens. head: classifier and pooler. adapter: what a method put in. other:
known to be none of these, such as the scale of a layer.
"""

FUSED = {"qkv": ("q", "k", "v"), "kv": ("k", "v")}
"""The parts of a fused matrix, top to bottom, all of one height; unless its rows are interleaved."""

OUTSIDE = r"(?:[A-Za-z_]+\.)*?"
"""What may stand before a family's names: the network may be a part of another."""


@dataclass(frozen=True)
class Family:
    """Networks whose layers have the same names.

    block: the name of a block. mark: a layer in a block that no other family has under that name. inside:
    by role, the names of layers and parameters in a block. outside: those of the others, in full.
    convolutional: a convolution without a name here has the role conv. interleaved: a fused matrix holds
    q, k and v of one head after the other, so that they are no parts of it.
    """

    name: str
    block: str
    mark: str
    inside: Mapping[str, str]
    outside: Mapping[str, str] = field(default_factory=dict)
    convolutional: bool = False
    interleaved: bool = False

    @property
    def staged(self) -> bool:
        """Whether the blocks come in stages, each of a width of its own."""
        return self.block.count(r"\d+") > 1

    def is_that_of(self, names: Iterable[str]) -> bool:
        """Whether a network with layers of these names belongs to the family."""
        mark = re.compile(rf"{OUTSIDE}{self.block}\.(?:{self.mark})")
        return any(mark.fullmatch(name) for name in names)


HEADS = r"(head|heads|head_dist|fc|classifier|pre_classifier|pooler|lm_head|score)(\..*)?"
TOKENS = r"(cls|reg|dist|mask|register|class)_tokens?|pos_embed(_\w+)?|(patch|pos)_embed\..*"
EVERYWHERE = {"head": HEADS, "embedding": TOKENS}

POOL = {
    "head": rf"attn_pool\.(q|kv|proj)|{HEADS}",  # attention of one learned query: a pooling
    "fc1": r"attn_pool\.mlp\.fc1",
    "fc2": r"attn_pool\.mlp\.fc2",
    "embedding": rf"attn_pool\.latent|{TOKENS}",
}

VIT = {
    "qkv": r"(attns\.\d+\.)?attn\.qkv",
    "q": r"attn\.(q|q_proj|q_bias)",
    "k": r"attn\.(k|k_proj|k_bias)",
    "v": r"attn\.(v|v_proj|v_bias)",
    "output": r"(attns\.\d+\.)?attn\.proj",
    "fc1": r"(ffns\.\d+\.)?mlp\.fc1",
    "fc2": r"(ffns\.\d+\.)?mlp\.fc2",
    "embedding": r"attn\.(rel_pos\.)?relative_position_bias_table",
    "other": r"attn\.(gate|logit_scale|cpb_mlp\.\d+)",
}

GATED_VIT = {
    **{role: names for role, names in VIT.items() if role not in ("fc1", "fc2")},
    "gate": r"mlp\.fc1_g",
    "up": r"mlp\.fc1_x",
    "down": r"mlp\.fc2",
}

LEVIT = {
    "qkv": r"attn\.qkv\.linear",
    "output": r"attn\.proj\.ln\.linear",
    "fc1": r"mlp\.ln1\.linear",
    "fc2": r"mlp\.ln2\.linear",
    "embedding": r"attn\.attention_biases",
}

CONVNEXT = {"fc1": r"mlp\.fc1", "fc2": r"mlp\.fc2"}

MOBILENET = {
    "q": r"attn\.query\.proj",
    "k": r"attn\.key\.proj",
    "v": r"attn\.value\.proj",
    "output": r"attn\.output\.proj",
}

BERT = {
    "q": r"attention\.self\.query",
    "k": r"attention\.self\.key",
    "v": r"attention\.self\.value",
    "output": r"attention\.output\.dense",
    "fc1": r"intermediate\.dense",
    "fc2": r"output\.dense",
}

DISTILBERT = {
    "q": r"attention\.q_lin",
    "k": r"attention\.k_lin",
    "v": r"attention\.v_lin",
    "output": r"attention\.out_lin",
    "fc1": r"ffn\.lin1",
    "fc2": r"ffn\.lin2",
}

GPT2 = {
    "qkv": r"attn\.c_attn",
    "output": r"attn\.c_proj",
    "fc1": r"mlp\.c_fc",
    "fc2": r"mlp\.c_proj",
}

LLAMA = {
    "q": r"self_attn\.q_proj",
    "k": r"self_attn\.k_proj",
    "v": r"self_attn\.v_proj",
    "output": r"self_attn\.o_proj",
    "gate": r"mlp\.gate_proj",
    "up": r"mlp\.up_proj",
    "down": r"mlp\.down_proj",
}

SWIN_BETWEEN = {"other": r"layers\.\d+\.downsample\.reduction"}
LEVIT_BETWEEN = {
    "q": r"stages\.\d+\.downsample\.attn_downsample\.q\.ln\.linear",
    "kv": r"stages\.\d+\.downsample\.attn_downsample\.kv\.linear",
    "output": r"stages\.\d+\.downsample\.attn_downsample\.proj\.ln\.linear",
    "fc1": r"stages\.\d+\.downsample\.mlp\.ln1\.linear",
    "fc2": r"stages\.\d+\.downsample\.mlp\.ln2\.linear",
    "embedding": r"stages\.\d+\.downsample\.attn_downsample\.attention_biases",
}

VIT_BLOCK, STAGE_BLOCK = r"blocks\.\d+", r"stages\.\d+\.blocks\.\d+"
MOBILE_MARK = r"conv|conv_dw|conv_pwl?|(dw_start|pw_exp|dw_mid|pw_proj)\.conv"

FAMILIES = (
    Family("gated ViT", VIT_BLOCK, r"mlp\.fc1_g", GATED_VIT, POOL, convolutional=True),
    Family("ViT", VIT_BLOCK, VIT["qkv"] + r"|attn\.q_proj", VIT, POOL, convolutional=True),
    Family("Swin", r"layers\.\d+\.blocks\.\d+", r"attn\.qkv", VIT, SWIN_BETWEEN),
    Family("LeViT", STAGE_BLOCK, LEVIT["qkv"], LEVIT, LEVIT_BETWEEN, True, interleaved=True),
    Family("ConvNeXt", STAGE_BLOCK, "conv_dw", CONVNEXT, convolutional=True),
    Family("ResNet", r"layer\d+\.\d+", "conv1", {}, convolutional=True),
    Family("MobileNet", r"blocks\.\d+\.\d+", MOBILE_MARK, MOBILENET, convolutional=True),
    Family("BERT", r"layer\.\d+", BERT["q"], BERT),
    Family("DistilBERT", r"layer\.\d+", DISTILBERT["q"], DISTILBERT),
    Family("GPT-2", r"h\.\d+", GPT2["qkv"], GPT2),
    Family("Llama", r"layers\.\d+", LLAMA["q"], LLAMA),
)
