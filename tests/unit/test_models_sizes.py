"""Each family at its published configuration has as many parameters as published; built without memory for them.

BLIP: 247M and 470M count the vocabulary's matrix twice, as embedding and as head, which transformers ties (Li et al. 2022;
the published files hold both). ViT-GPT2: the checkpoint's card. GIT, BLIP-2 and ClipCap are counted beside their families.
"""

from __future__ import annotations

import pytest
import torch
from transformers import (
    BlipConfig,
    GPT2Config,
    PreTrainedModel,
    VisionEncoderDecoderConfig,
    VisionEncoderDecoderModel,
    ViTConfig,
)

from captrain.models.families.blip import BlipForConditionalGeneration

VIT_LARGE = {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096}


def blip(**vision: int) -> PreTrainedModel:
    width = vision.get("hidden_size", 768)
    return BlipForConditionalGeneration(BlipConfig(vision_config=vision, text_config={"encoder_hidden_size": width}))


def vit_gpt2() -> PreTrainedModel:
    decoder = GPT2Config(add_cross_attention=True, is_decoder=True)
    return VisionEncoderDecoderModel(
        config=VisionEncoderDecoderConfig.from_encoder_decoder_configs(ViTConfig(), decoder)
    )


@pytest.mark.parametrize(
    ("kind", "tied", "with_head"),
    [("base", 223_971_644, 247_414_076), ("large", 446_290_492, 469_732_924)],
)
def test_blip(kind: str, tied: int, with_head: int) -> None:
    with torch.device("meta"):
        model = blip(**(VIT_LARGE if kind == "large" else {}))
    vocabulary = model.text_decoder.bert.embeddings.word_embeddings.weight
    assert sum(weight.numel() for weight in model.parameters()) == tied
    assert tied + vocabulary.numel() == with_head


def test_vit_gpt2() -> None:
    with torch.device("meta"):
        model = vit_gpt2()
    assert sum(weight.numel() for weight in model.parameters()) == 239_195_904
