"""Small networks of every family: timm's own, and modules with the names that Transformers uses."""

from __future__ import annotations

from typing import Any

import timm
import torch
from torch import Tensor, nn
from torch.nn import functional as F

SMALL: dict[str, Any] = {"depth": 2, "embed_dim": 24, "num_heads": 2, "img_size": 32}
SWIN: dict[str, Any] = {
    "embed_dim": 12,
    "depths": (1, 2, 1, 1),
    "num_heads": (1, 2, 2, 2),
    "img_size": 64,
}
TIMM: dict[str, dict[str, Any]] = {
    "vit_tiny_patch16_224": SMALL,
    "deit_tiny_distilled_patch16_224": SMALL,
    "deit3_small_patch16_224": SMALL,
    "vit_medium_patch16_reg4_gap_256": SMALL,
    "vit_base_patch16_siglip_224": SMALL,
    "eva02_tiny_patch14_224": {**SMALL, "img_size": 28},
    "eva02_base_patch14_224": {**SMALL, "img_size": 28},
    "beit_base_patch16_224": SMALL,
    "swin_tiny_patch4_window7_224": {**SWIN, "window_size": 4},
    "swinv2_tiny_window8_256": {**SWIN, "window_size": 4},
    "convnext_atto": {},
    "resnet18": {},
    "mobilenetv2_050": {},
    "mobilenetv3_small_050": {},
    "efficientnet_b0": {},
    "levit_128s": {},
}


def create(name: str) -> nn.Module:
    """The timm model of that name, random, small and without classifier."""
    torch.manual_seed(0)
    return timm.create_model(name, pretrained=False, num_classes=0, **TIMM[name]).eval()


WIDTH, WORDS = 8, 11


class Named(nn.Module):
    """A module with these children."""

    def __init__(self, children: dict[str, nn.Module]) -> None:
        super().__init__()
        for name, child in children.items():
            self.add_module(name, child)


class Conv1D(nn.Module):
    """As in Transformers' GPT-2: linear, with a weight of in × out."""

    def __init__(self, nf: int, nx: int) -> None:
        super().__init__()
        self.nf, self.nx = nf, nx
        self.weight = nn.Parameter(torch.randn(nx, nf) / nx**0.5)
        self.bias = nn.Parameter(torch.randn(nf))

    def forward(self, x: Tensor) -> Tensor:
        return torch.addmm(self.bias, x.view(-1, self.nx), self.weight).view(*x.shape[:-1], self.nf)


def square() -> nn.Linear:
    return nn.Linear(WIDTH, WIDTH)


def bert_layer() -> nn.Module:
    return Named(
        {
            "attention": Named(
                {
                    "self": Named({"query": square(), "key": square(), "value": square()}),
                    "output": Named({"dense": square(), "LayerNorm": nn.LayerNorm(WIDTH)}),
                }
            ),
            "intermediate": Named({"dense": nn.Linear(WIDTH, 4 * WIDTH)}),
            "output": Named(
                {"dense": nn.Linear(4 * WIDTH, WIDTH), "LayerNorm": nn.LayerNorm(WIDTH)}
            ),
        }
    )


def bert() -> nn.Module:
    embeddings = {
        "word_embeddings": nn.Embedding(WORDS, WIDTH, padding_idx=0),
        "position_embeddings": nn.Embedding(6, WIDTH),
        "LayerNorm": nn.LayerNorm(WIDTH),
    }
    return Named(
        {
            "embeddings": Named(embeddings),
            "encoder": Named({"layer": nn.ModuleList([bert_layer(), bert_layer()])}),
            "pooler": Named({"dense": square()}),
        }
    )


def roberta_for_classification() -> nn.Module:
    return Named(
        {"roberta": bert(), "classifier": Named({"dense": square(), "out_proj": square()})}
    )


def distilbert() -> nn.Module:
    def layer() -> nn.Module:
        attention = {f"{name}_lin": square() for name in ("q", "k", "v", "out")}
        mlp = {"lin1": nn.Linear(WIDTH, 4 * WIDTH), "lin2": nn.Linear(4 * WIDTH, WIDTH)}
        return Named(
            {
                "attention": Named(attention),
                "sa_layer_norm": nn.LayerNorm(WIDTH),
                "ffn": Named(mlp),
                "output_layer_norm": nn.LayerNorm(WIDTH),
            }
        )

    return Named(
        {
            "embeddings": Named({"word_embeddings": nn.Embedding(WORDS, WIDTH)}),
            "transformer": Named({"layer": nn.ModuleList([layer(), layer()])}),
        }
    )


class GPT2Block(nn.Module):
    """One head of causal attention and an MLP, as GPT-2 has them."""

    def __init__(self) -> None:
        super().__init__()
        self.ln_1, self.ln_2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.attn = Named({"c_attn": Conv1D(3 * WIDTH, WIDTH), "c_proj": Conv1D(WIDTH, WIDTH)})
        self.mlp = Named({"c_fc": Conv1D(4 * WIDTH, WIDTH), "c_proj": Conv1D(WIDTH, 4 * WIDTH)})

    def forward(self, x: Tensor) -> Tensor:
        attn, mlp = self.attn, self.mlp
        q, k, v = attn.c_attn(self.ln_1(x)).chunk(3, dim=2)
        x = x + attn.c_proj(F.scaled_dot_product_attention(q, k, v, is_causal=True))
        y: Tensor = x + mlp.c_proj(F.gelu(mlp.c_fc(self.ln_2(x))))
        return y


class GPT2(nn.Module):
    """Token ids B × L to the last position's vector, B × width."""

    def __init__(self) -> None:
        super().__init__()
        self.wte, self.wpe = nn.Embedding(WORDS, WIDTH), nn.Embedding(6, WIDTH)
        self.h = nn.ModuleList([GPT2Block(), GPT2Block()])
        self.ln_f = nn.LayerNorm(WIDTH)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.wte(ids) + self.wpe(torch.arange(ids.shape[1]))
        for block in self.h:
            x = block(x)
        y: Tensor = self.ln_f(x)[:, -1]
        return y


class LlamaRMSNorm(nn.Module):
    """The norm of Llama: one scale per channel."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))


def llama() -> nn.Module:
    def layer() -> nn.Module:
        key_value = {n: nn.Linear(WIDTH, WIDTH // 2, bias=False) for n in ("k_proj", "v_proj")}
        attention = {"q_proj": square(), **key_value, "o_proj": square()}
        mlp = {"gate_proj": nn.Linear(WIDTH, 12), "up_proj": nn.Linear(WIDTH, 12)}
        return Named(
            {
                "self_attn": Named(attention),
                "mlp": Named({**mlp, "down_proj": nn.Linear(12, WIDTH)}),
                "input_layernorm": LlamaRMSNorm(WIDTH),
                "post_attention_layernorm": LlamaRMSNorm(WIDTH),
            }
        )

    model = {
        "embed_tokens": nn.Embedding(WORDS, WIDTH),
        "layers": nn.ModuleList([layer(), layer()]),
        "norm": LlamaRMSNorm(WIDTH),
    }
    return Named({"model": Named(model), "lm_head": nn.Linear(WIDTH, WORDS, bias=False)})


TEXT = {
    "BERT": bert,
    "RoBERTa": roberta_for_classification,
    "DistilBERT": distilbert,
    "GPT-2": GPT2,
    "Llama": llama,
}
