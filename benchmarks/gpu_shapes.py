"""The captioners that `gpu.py` measures: shapes of published models, random weights, and a tiny one of each kind for tests."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import transformers
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn
from transformers import Blip2Config, BlipConfig, CLIPVisionConfig, GenerationConfig, GPT2Config, OPTConfig

from captrain.data.images import ImageSpec
from captrain.models.contract import CaptionerModel
from captrain.models.decoding import Decoding, GenerateInputs
from captrain.models.families import blip, blip2
from captrain.models.families.prefix.captioner import PrefixCaptioner
from captrain.models.families.prefix.mapper import PrefixConfig
from captrain.models.families.prefix.model import PrefixModel
from captrain.models.lora import LoraOptions, add_lora
from captrain.models.what_learns import freeze, lower_frozen

HALF = (0.5, 0.5, 0.5)
RANK = 16


class NoTokenizer:
    """Stands where a captioner's tokenizer is; the captions here are token ids, fewer than `words` of them."""

    pad_token_id, bos_token_id, eos_token_id, words = 0, 2, 3, 60

    def __len__(self) -> int:
        return self.words

    def batch_decode(self, ids: list[list[int]], **options: Any) -> list[str]:
        """No text."""
        return [""] * len(ids)


@dataclass(frozen=True, slots=True)
class Case:
    """A kind of captioner, its size, and what learns: adapters in the decoder, all but the encoder, or everything."""

    family: str
    size: str
    learns: str

    @property
    def frozen(self) -> bool:
        """Whether its encoder stays as it is, so that features can be cached."""
        return self.learns != "full"


CASES = {
    "blip-base-lora": Case("blip", "base", "lora"),
    "blip-base-full": Case("blip", "base", "full"),
    "blip-large-lora": Case("blip", "large", "lora"),
    "blip-large-full": Case("blip", "large", "full"),
    "clipcap-full": Case("prefix", "base", "decoder"),
    "clipcap-lora": Case("prefix", "base", "lora"),
    "blip-2-lora": Case("blip-2", "base", "lora"),
    "blip-2-bridge": Case("blip-2", "base", "bridge"),
}


def config_of(family: str, size: str) -> Any:
    """The configuration of a published model, or of a tiny one of the same kind."""
    return {"blip": _blip, "prefix": _clipcap, "blip-2": _blip2}[family](size)


def _tiny(**more: Any) -> dict[str, Any]:
    return {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, **more}


def _blip(size: str) -> BlipConfig:
    if size == "tiny":
        text = _tiny(
            vocab_size=80, encoder_hidden_size=32, max_position_embeddings=64, bos_token_id=70, sep_token_id=71
        )
        return BlipConfig(text_config=text, vision_config=_tiny(image_size=32, patch_size=16))
    large = {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "num_attention_heads": 16}
    vision = large if size == "large" else {}
    text = {"encoder_hidden_size": vision.get("hidden_size", 768)}
    return BlipConfig(vision_config={"image_size": 384, **vision}, text_config=text)


def _clipcap(size: str) -> PrefixConfig:
    tiny = size == "tiny"
    vision = CLIPVisionConfig(
        **_tiny(image_size=32, patch_size=16, projection_dim=32) if tiny else {"projection_dim": 512}
    )
    words = (
        GPT2Config(n_embd=32, n_layer=2, n_head=2, vocab_size=80, eos_token_id=3, bos_token_id=3)
        if tiny
        else GPT2Config()
    )
    return PrefixConfig(
        vision.to_dict(), words.to_dict(), vision.projection_dim, projected=True, mapper="mlp", prefix_length=10
    )


def _blip2(size: str) -> Blip2Config:
    if size == "tiny":
        words = {"vocab_size": 80, "bos_token_id": 2, "eos_token_id": 3, "pad_token_id": 1}
        text = OPTConfig(
            hidden_size=32, ffn_dim=64, num_hidden_layers=2, num_attention_heads=2, word_embed_proj_dim=32, **words
        )
        return Blip2Config(
            vision_config=_tiny(image_size=32, patch_size=16), qformer_config=_tiny(encoder_hidden_size=32),
            text_config=text.to_dict(), num_query_tokens=4, image_token_index=79,
        )  # fmt: skip
    text = OPTConfig(
        hidden_size=2560, ffn_dim=10240, num_hidden_layers=32, num_attention_heads=32, word_embed_proj_dim=2560,
        vocab_size=50304, eos_token_id=50118,
    )  # fmt: skip
    return Blip2Config(text_config=text.to_dict(), image_token_index=50265)


PLAIN: dict[str, Any] = {
    "blip": transformers.BlipForConditionalGeneration,
    "prefix": PrefixModel,
    "blip-2": transformers.Blip2ForConditionalGeneration,
}
OURS: dict[str, tuple[Any, Any]] = {
    "blip": (blip.BlipForConditionalGeneration, blip.BlipCaptioner),
    "prefix": (PrefixModel, PrefixCaptioner),
    "blip-2": (transformers.Blip2ForConditionalGeneration, blip2.Blip2Captioner),
}


@dataclass(frozen=True, slots=True)
class Ids:
    """Token ids that plain transformers are given: around a caption, and before it at generation."""

    start: int
    end: int
    pad: int
    before: GenerateInputs | None


@dataclass(frozen=True, slots=True)
class Subject:
    """A model to be measured, plain or a captioner of captrain's, and the edge of its pictures."""

    model: Any
    family: str
    ids: Ids
    edge: int
    device: torch.device

    def pixels(self, images: int) -> Tensor:
        """Random pictures (I, height, width, 3), uint8."""
        return torch.randint(0, 255, (images, self.edge, self.edge, 3), dtype=torch.uint8, device=self.device)

    def packed_loss(self, rows: list[list[list[int]]], *, cached: bool) -> Callable[[], Tensor]:
        """The loss of packed rows, from pixels, or from features computed once."""
        captioner, pixels = self.model, self.pixels(len(rows))
        packed = captioner.pack(rows).to(self.device).to_dict()
        if captioner.vision_learns():
            return lambda: captioner(pixels=pixels, **packed).loss

        def features() -> Tensor:
            with torch.no_grad():
                return captioner.encode(pixels).to(captioner.precision)

        kept = features() if cached else None
        return lambda: captioner(features=features() if kept is None else kept, **packed).loss

    def plain_loss(self, rows: list[list[list[int]]]) -> Callable[[], Tensor]:
        """The loss as plain transformers has it: captions padded to the longest, each with its picture."""
        before = self.ids.before
        shown = [before.placeholder] * before.pictures if before is not None else []
        start = [*shown, *([] if self.family == "prefix" else [self.ids.start])]
        texts = [[*start, *caption, self.ids.end] for row in rows for caption in row]
        length = max(map(len, texts))
        ids = torch.tensor([text + [self.ids.pad] * (length - len(text)) for text in texts], device=self.device)
        mask = torch.tensor([[1] * len(text) + [0] * (length - len(text)) for text in texts], device=self.device)
        labels = ids.masked_fill(mask == 0, -100)
        labels[:, : len(start)] = -100
        pixels = self.pixels(len(rows)).permute(0, 3, 1, 2).float().div(127.5).sub(1).repeat_interleave(len(rows[0]), 0)
        inputs = {"pixel_values": pixels, "input_ids": ids}
        if self.family == "prefix":
            return lambda: self._prefix_loss(inputs, labels)
        return lambda: self._autocast(lambda: self.model(**inputs, attention_mask=mask, labels=labels).loss)

    def write(self, images: int, tokens: int) -> None:
        """Greedy captions of so many tokens from pixels, in the model's own way."""
        pixels = self.pixels(images)
        if isinstance(self.model, CaptionerModel):
            decoding = Decoding(beams=1, max_new_tokens=tokens, min_new_tokens=tokens)
            with torch.no_grad():
                self.model.generate(self.model.encode(pixels), decoding)
            return
        before = self.ids.before
        config = GenerationConfig(
            max_new_tokens=tokens, min_new_tokens=tokens, do_sample=False, pad_token_id=self.ids.pad,
            eos_token_id=self.ids.end,
        )  # fmt: skip
        inputs: dict[str, Tensor] = {}
        if before is not None:
            ids = [*[before.placeholder] * before.pictures, *before.ids]
            inputs[before.argument] = torch.tensor([ids] * images, device=self.device)
        scaled = pixels.permute(0, 3, 1, 2).float().div(127.5).sub(1)
        with torch.no_grad():
            self._autocast(lambda: self.model.eval().generate(pixel_values=scaled, generation_config=config, **inputs))

    def _autocast(self, work: Callable[[], Any]) -> Any:
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda"):
            return work()

    def _prefix_loss(self, inputs: dict[str, Tensor], labels: Tensor) -> Tensor:
        """ClipCap's loss: the last prefix vector predicts the first word."""
        logits = self._autocast(lambda: self.model(**inputs).logits)
        words = logits[:, -labels.shape[1] - 1 : -1]
        return nn.functional.cross_entropy(words.flatten(0, 1).float(), labels.flatten())


def make_subject(name: str, plain: bool, device: torch.device, tiny: bool = False) -> Subject:
    """A case's model with random weights, made on the device, with what learns in it."""
    case = CASES[name]
    config = config_of(case.family, "tiny" if tiny else case.size)
    vision = config.vision_config() if case.family == "prefix" else config.vision_config
    edge = int(vision.image_size)
    torch.manual_seed(0)
    with device:
        core = (PLAIN[case.family] if plain else OURS[case.family][0])(config)
    captioner = OURS[case.family][1](core, NoTokenizer(), ImageSpec(edge, edge, HALF, HALF))
    captioner.label_smoothing = 0.0  # as plain transformers has it
    captioner.precision = torch.bfloat16 if device.type == "cuda" else torch.float32
    captioner.to(device)
    ids = Ids(captioner.start_id, captioner.end_id, captioner.pad_id, captioner.plain_inputs())
    if plain:
        return Subject(_plain(core, captioner, case), case.family, ids, edge, device)
    if case.learns == "lora":
        add_lora(captioner, LoraOptions(rank=RANK, alpha=2 * RANK, dropout=0.05))
    else:
        freeze(captioner, {"decoder": ("vision",), "bridge": ("vision", "language"), "full": ()}[case.learns])
    if captioner.precision == torch.bfloat16:
        lower_frozen(captioner)
    return Subject(captioner, case.family, ids, edge, device)


def _plain(core: Any, captioner: CaptionerModel, case: Case) -> Any:
    """The plain model, with the same weights to learn: peft's adapters, or frozen parts."""
    if case.learns == "lora":
        targets = rf"(model\.)?({captioner.lora_targets('language')})"
        adapters = LoraConfig(
            r=RANK,
            lora_alpha=2 * RANK,
            lora_dropout=0.05,
            target_modules=targets,
            fan_in_fan_out=case.family == "prefix",
        )
        return get_peft_model(core, adapters)
    freeze(captioner, {"decoder": ("vision",), "bridge": ("vision", "language"), "full": ()}[case.learns])
    return core
