"""Any vision encoder of transformers as a row of vectors an image.

Encoders differ in what they return: vectors (I, N, D), or a grid (I, D, height, width); some have a pooled vector, some
don't; some are the half of a two-tower model. `VisionVectors` levels that, as a model of its own that the Auto classes know,
so that it can be the encoder of a plain `VisionEncoderDecoderModel`.

Pictures as encoders take them.

A picture seen twice, as it is and mirrored: the mean of both is a steadier view of it.

Fewer image vectors to look at while learning: a text half that can't count on any one of them overfits later.
"""

from __future__ import annotations

import math
from inspect import signature
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, BlipVisionConfig, BlipVisionModel, PreTrainedConfig, PreTrainedModel
from transformers import initialization as init
from transformers.modeling_outputs import BaseModelOutput
from transformers.models.auto.modeling_auto import MODEL_MAPPING
from transformers.utils import ModelOutput

from captrain.errors import ModelError
from captrain.models.checkpoint.loading import class_for, load_model, new_model, part_config, read_config
from captrain.models.contexts import evaluating


class VisionVectorsConfig(PreTrainedConfig):
    """Which encoder, whether all its vectors or the pooled one, and the rows and columns of its grid if it has one."""

    model_type = "captrain_vision_vectors"

    def __init__(
        self,
        vision: dict[str, Any] | None = None,
        vectors: str = "all",
        hidden_size: int = 0,
        grid: tuple[int, int] | None = None,
        **kwargs: Any,
    ) -> None:
        self.vision = vision or {}
        self.vectors = vectors
        self.hidden_size = hidden_size
        self.grid = grid
        super().__init__(**kwargs)


class VisionVectors(PreTrainedModel):
    """An encoder whose output is always (I, N, D): a grid row by row, or N = 1 pooled vector, normalised.

    Convolutional encoders say what is in a cell of their grid and hardly where the cell is, so a grid's cells get learned
    positions. Norm and positions belong to the bridge: they learn while the encoder itself is frozen.
    """

    config_class = VisionVectorsConfig
    main_input_name = "pixel_values"
    base_model_prefix = "vision_vectors"

    def __init__(self, config: VisionVectorsConfig, encoder: PreTrainedModel | None = None) -> None:
        super().__init__(config)
        self.encoder = encoder or new_model(AutoModel, part_config(config.vision))
        self.norm = nn.LayerNorm(config.hidden_size)
        self.positions = nn.Embedding(math.prod(config.grid), config.hidden_size) if config.grid else None
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        """Positions begin as waves over rows and columns, the norm as transformers begins norms."""
        if isinstance(module, nn.Embedding):
            rows, columns = self.config.grid
            init.copy_(module.weight, sine_positions(rows, columns, self.config.hidden_size))
        elif isinstance(module, nn.LayerNorm):
            init.ones_(module.weight)
            init.zeros_(module.bias)

    def forward(self, pixel_values: Tensor, **kwargs: Any) -> BaseModelOutput:
        """Normalised pixels (I, 3, height, width) -> vectors (I, N, D)."""
        return BaseModelOutput(last_hidden_state=self.locate(self.look(pixel_values)))

    def look(self, pixel_values: Tensor) -> Tensor:
        """What the encoder alone makes of the pixels: vectors (I, N, D)."""
        output = see(self.encoder, pixel_values)
        return pooled_vector(output)[:, None] if self.config.vectors == "pooled" else rows_of_vectors(output[0])

    def locate(self, vectors: Tensor) -> Tensor:
        """Vectors (I, N, D) normalised, each with its place in the grid added."""
        normed = self.norm(vectors.float())
        if self.positions is None:
            return normed
        return normed + self.positions(torch.arange(vectors.shape[1], device=vectors.device))


AutoConfig.register(VisionVectorsConfig.model_type, VisionVectorsConfig)
AutoModel.register(VisionVectorsConfig, VisionVectors)
AutoModel.register(BlipVisionConfig, BlipVisionModel, exist_ok=True)  # transformers left this one out


def see(encoder: PreTrainedModel, pixels: Tensor) -> Any:
    """An encoder's output for normalised pixels (I, 3, height, width).

    At another size than its own an encoder with learned positions interpolates them, if it can.
    """
    size = getattr(encoder.config, "image_size", None)
    own = (size, size) if isinstance(size, int) else tuple(size or ())
    if tuple(pixels.shape[-2:]) == own or "interpolate_pos_encoding" not in signature(encoder.forward).parameters:
        return encoder(pixel_values=pixels)
    return encoder(pixel_values=pixels, interpolate_pos_encoding=True)


def rows_of_vectors(states: Tensor) -> Tensor:
    """A grid (I, D, height, width) as (I, height * width, D), row by row; vectors (I, N, D) as they are.

    >>> rows_of_vectors(torch.zeros(1, 768, 7, 7)).shape
    torch.Size([1, 49, 768])
    """
    return states.flatten(2).transpose(1, 2) if states.dim() == 4 else states


def sine_positions(rows: int, columns: int, width: int) -> Tensor:
    """A vector for each cell of a grid, row by row: waves over its row in the first half, over its column in the second.

    The longest wave spans the grid in half a period, so that every cell differs from every other (after Vaswani et al. 2017).

    >>> sine_positions(7, 7, 768).shape
    torch.Size([49, 768])
    """
    waves = -(-width // 4)
    frequencies = math.pi / 2 * 16 ** (torch.arange(waves) / waves)
    halves = []
    for count in (rows, columns):
        phases = ((torch.arange(count) + 0.5) / count)[:, None] * frequencies
        halves.append(torch.cat([phases.sin(), phases.cos()], 1))
    down = halves[0][:, None].expand(rows, columns, -1)
    across = halves[1][None].expand(rows, columns, -1)
    return torch.cat([down, across], 2).reshape(rows * columns, -1)[:, :width]


def load_encoder(source: str, vectors: str, height: int, width: int) -> PreTrainedModel:
    """A vision encoder from a folder or hub id, ready to be joined with a text decoder.

    Of a two-tower checkpoint (CLIP, SigLIP, BLIP) only the image tower is loaded. What already returns (I, N, D) and says its
    width stays as it is, so that the joined model needs nothing but transformers; everything else is wrapped.

    Args:
        vectors: `all`, or `pooled` for the one vector that stands for the whole image.
        height, width: of the pictures that it will see; it is run on one to find what it returns.
    """
    config = read_config(source)
    config = getattr(config, "vision_config", config)
    if type(config) not in MODEL_MAPPING:
        raise ModelError(
            f"{source}: '{config.model_type}' is no encoder that transformers can load; expected a vision model"
        )
    encoder = load_model(class_for(AutoModel, config), source, config)
    if getattr(encoder, "main_input_name", "") != "pixel_values":
        raise ModelError(
            f"{source}: a '{config.model_type}' reads {encoder.main_input_name}, not pictures; expected a vision encoder"
        )
    with evaluating(encoder), torch.no_grad():
        output = see(encoder, torch.zeros(1, 3, height, width))
    states = output.last_hidden_state
    if vectors == "all" and states.dim() == 3 and getattr(encoder.config, "hidden_size", None) == states.shape[-1]:
        return encoder
    size = pooled_vector(output).shape[-1] if vectors == "pooled" else rows_of_vectors(states).shape[-1]
    grid = tuple(states.shape[2:]) if states.dim() == 4 and vectors == "all" else None
    return VisionVectors(VisionVectorsConfig(encoder.config.to_dict(), vectors, size, grid), encoder)


def pooled_vector(output: ModelOutput) -> Tensor:
    """The vector (I, D) that stands for the image: what the encoder pools, else the mean of its vectors."""
    pooled = getattr(output, "pooler_output", None)
    return rows_of_vectors(output.last_hidden_state).mean(1) if pooled is None else pooled.flatten(1)


def scale(pixels: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Pixels (I, height, width, 3), uint8, as (I, 3, height, width): less the mean (3,), over the deviation (3,).

    Works in place on whole rows, twelve times as fast on a CPU as channel by channel; to the bit the same.

    >>> half = torch.full((3,), 0.5)
    >>> scale(torch.tensor([[[[0, 255, 51]]]], dtype=torch.uint8), half, half).flatten().tolist()
    [-1.0, 1.0, -0.6000000238418579]
    """
    images, height, width, channels = pixels.shape
    rows = pixels.reshape(images * height, width * channels).to(torch.float32)
    scaled = rows.div_(255).sub_(mean.repeat(width)).div_(std.repeat(width))
    return scaled.view(images, height, width, channels).permute(0, 3, 1, 2)


BEFORE_THE_GRID = (0, 1, 2, 5)
"""Vectors that encoders put before those of their grid: none, a class token, DeiT's two, DINOv2's with registers."""


def mean_with_mirrored(plain: Tensor, mirrored: Tensor, height: int, width: int) -> Tensor:
    """The mean of what an encoder makes of pictures and of their mirror images, both (I, N, D), the latter turned back.

    Args:
        height, width: of the pictures.

    Raises `ModelError` where the vectors are neither one an image nor a grid.
    """
    return (plain + turned_back(mirrored, height, width)) / 2


def turned_back(vectors: Tensor, height: int, width: int) -> Tensor:
    """Vectors (I, N, D) of mirrored pictures in the places that their cells have in the pictures themselves.

    >>> turned_back(torch.tensor([0, 1, 2, 3, 4, 5, 6, 7, 8]).view(1, 9, 1), 32, 32).flatten().tolist()
    [2, 1, 0, 5, 4, 3, 8, 7, 6]
    >>> turned_back(torch.tensor([9, 0, 1, 2, 3]).view(1, 5, 1), 32, 32).flatten().tolist()
    [9, 1, 0, 3, 2]
    """
    if vectors.shape[1] == 1:
        return vectors
    before, rows, columns = grid_of(vectors.shape[1], height, width)
    grid = vectors[:, before:].unflatten(1, (rows, columns)).flip(2).flatten(1, 2)
    return torch.cat([vectors[:, :before], grid], 1)


def grid_of(count: int, height: int, width: int) -> tuple[int, int, int]:
    """How many of `count` vectors stand before the grid, and its rows and columns, for pictures of height x width.

    >>> grid_of(577, 384, 384), grid_of(49, 224, 224), grid_of(32, 224, 448)
    ((1, 24, 24), (0, 7, 7), (0, 4, 8))
    """
    for before in BEFORE_THE_GRID:
        rows = round(((count - before) * height / width) ** 0.5)
        if rows and (count - before) % rows == 0 and abs((count - before) // rows * height / width - rows) < 0.5:
            return before, rows, (count - before) // rows
    raise ModelError(
        f"mirror: the encoder's {count} vectors are no grid over the picture, so they can't be turned back"
    )


def drop_patches(vectors: Tensor, share: float) -> Tensor:
    """A random subset of each image's vectors, in their order (PatchDropout, Liu et al. 2023).

    Args:
        vectors: (I, N, D), with their positions already in them. share: of the N that go, drawn anew for each image.

    Returns:
        Vectors (I, K, D); K is N * (1 - share), rounded, and at least 1.

    >>> drop_patches(torch.arange(8.0).view(1, 8, 1), 0.25).shape
    torch.Size([1, 6, 1])
    """
    images, count, width = vectors.shape
    kept = max(1, round(count * (1 - share)))
    chosen = torch.rand(images, count, device=vectors.device).topk(kept, dim=1).indices.sort(dim=1).values
    return vectors.gather(1, chosen[..., None].expand(-1, -1, width))
