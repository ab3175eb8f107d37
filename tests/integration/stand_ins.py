"""Tiny checkpoints of the true kinds, under the hub ids that recipes and pages name; such a folder goes before the hub."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from transformers import (
    CLIPConfig,
    CLIPModel,
    CLIPTextConfig,
    CLIPVisionConfig,
    MobileNetV1Config,
    MobileNetV1Model,
)

from captrain.data.images import ImageSpec
from captrain.models.checkpoint.image_preparation import write_preparation
from captrain.testing import (
    tiny_blip,
    tiny_blip2,
    tiny_encoder_decoder,
    tiny_git,
    tiny_text_decoder,
    tiny_vision_encoder,
)

HALF = (0.5, 0.5, 0.5)


def tiny_clip(folder: Path) -> Path:
    """A CLIP of two small towers."""
    torch.manual_seed(0)
    small = {"hidden_size": 24, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    vision = CLIPVisionConfig(**small, image_size=32, patch_size=8, projection_dim=16)
    text = CLIPTextConfig(**small, vocab_size=64, projection_dim=16)
    CLIPModel(CLIPConfig(vision_config=vision, text_config=text, projection_dim=16)).save_pretrained(folder)
    write_preparation(folder, ImageSpec(32, 32, HALF, HALF, resize="crop"), "CLIPImageProcessor")
    return folder


def tiny_mobilenet(folder: Path) -> Path:
    """A quarter as wide as the narrowest that is published."""
    torch.manual_seed(0)
    MobileNetV1Model(MobileNetV1Config(depth_multiplier=0.0625, image_size=192)).save_pretrained(folder)
    write_preparation(folder, ImageSpec(192, 192, HALF, HALF), "MobileNetV1ImageProcessor")
    return folder


STAND_INS: dict[str, Callable[[Path], Path]] = {
    "Salesforce/blip-image-captioning-base": tiny_blip,
    "Salesforce/blip-image-captioning-large": tiny_blip,
    "Salesforce/blip2-opt-2.7b": tiny_blip2,
    "Salesforce/blip2-opt-2.7b-coco": tiny_blip2,
    "microsoft/git-base-coco": tiny_git,
    "nlpconnect/vit-gpt2-image-captioning": tiny_encoder_decoder,
    "openai/clip-vit-base-patch32": tiny_clip,
    "openai/clip-vit-large-patch14": tiny_clip,
    "google/mobilenet_v1_0.75_192": tiny_mobilenet,
    "google/vit-base-patch16-224": tiny_vision_encoder,
    "distilgpt2": tiny_text_decoder,
    "gpt2": tiny_text_decoder,
}
"""For each hub id, what makes a tiny checkpoint of its kind."""
