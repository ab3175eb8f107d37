"""Image encoders: any of transformers as vectors (I, N, D); normalised pixels; mirror images; patch dropout.

Encoders return vectors (I, N, D) or a grid (I, D, height, width), with or without a pooled vector; some are one tower of two.
`VisionVectors` makes them alike. It is a model of its own that the Auto classes know, so that it can be the encoder of a plain
`VisionEncoderDecoderModel`.

Shape letters: I images, N vectors of an image, D their width.
"""

from __future__ import annotations

import math
from inspect import signature
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModel, PreTrainedConfig, PreTrainedModel
from transformers import initialization as init
from transformers.modeling_outputs import BaseModelOutput
from transformers.models.auto.modeling_auto import MODEL_MAPPING
from transformers.utils import ModelOutput

from captrain.errors import ModelError
from captrain.models.checkpoint.loading import class_for, load_model, new_model, part_config, read_config
from captrain.models.contexts import evaluating


class VisionVectorsConfig(PreTrainedConfig):
    """The encoder, which of its vectors are used (all or pooled), and the rows and columns of its grid, if it has one."""

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
    """An encoder whose output is always (I, N, D): a grid row by row, or one pooled vector (N = 1), normalised.

    The features of convolutional encoders hardly say where a cell of the grid is, so the cells get learned positions. Norm and
    positions belong to the bridge: they learn while the encoder itself is frozen.
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
        """Positions are initialised as waves over rows and columns, the norm as in transformers."""
        if isinstance(module, nn.Embedding):
            rows, columns = self.config.grid
            init.copy_(module.weight, sine_positions(rows, columns, self.config.hidden_size))
        elif isinstance(module, nn.LayerNorm):
            init.ones_(module.weight)
            init.zeros_(module.bias)

    def forward(self, pixel_values: Tensor, **kwargs: Any) -> BaseModelOutput:
        """Normalised pixels (I, 3, height, width) -> vectors (I, N, D)."""
        return BaseModelOutput(last_hidden_state=self.add_positions(self.encode_image(pixel_values)))

    def encode_image(self, pixel_values: Tensor) -> Tensor:
        """The encoder's own vectors (I, N, D)."""
        output = run_encoder(self.encoder, pixel_values)
        return pooled_vector(output)[:, None] if self.config.vectors == "pooled" else rows_of_vectors(output[0])

    def add_positions(self, vectors: Tensor) -> Tensor:
        """Vectors (I, N, D), normalised and with the positions of their grid cells added."""
        normed = self.norm(vectors.float())
        if self.positions is None:
            return normed
        return normed + self.positions(torch.arange(vectors.shape[1], device=vectors.device))


def run_encoder(encoder: PreTrainedModel, pixels: Tensor) -> Any:
    """The output of an image encoder of transformers for normalised pixels (I, 3, height, width).

    For pictures of another size, an encoder with learned positions interpolates them, if it can.
    """
    size = getattr(encoder.config, "image_size", None)
    own = (size, size) if isinstance(size, int) else tuple(size or ())
    if tuple(pixels.shape[-2:]) == own or "interpolate_pos_encoding" not in signature(encoder.forward).parameters:
        return encoder(pixel_values=pixels)
    return encoder(pixel_values=pixels, interpolate_pos_encoding=True)


def rows_of_vectors(states: Tensor) -> Tensor:
    """A grid (I, D, height, width) as vectors (I, height * width, D), row by row; vectors (I, N, D) unchanged.

    >>> rows_of_vectors(torch.zeros(1, 768, 7, 7)).shape
    torch.Size([1, 49, 768])
    """
    return states.flatten(2).transpose(1, 2) if states.dim() == 4 else states


def sine_positions(rows: int, columns: int, width: int) -> Tensor:
    """A vector for each cell of a grid, row by row: the first half encodes its row, the second its column, as waves.

    Half a period of the longest wave spans the grid, so that no two cells are alike (after Vaswani et al. 2017).

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
    """An image encoder from a folder or hub id, for a text decoder to attend to.

    From a two-tower checkpoint (CLIP, SigLIP, BLIP) only the image tower is loaded. An encoder that returns (I, N, D) and states
    its width is not wrapped, so that the joined model needs nothing but transformers. All others become `VisionVectors`.

    Args:
        vectors: `all`, or `pooled` for one vector of the whole image.
        height, width: of the input pictures; the encoder runs once, to find out what it returns.
    """
    config = read_config(source)
    config = getattr(config, "vision_config", config)
    if type(config) not in MODEL_MAPPING:
        raise ModelError(
            f"{source}: '{config.model_type}' is not an encoder that transformers can load; expected a vision model"
        )
    encoder = load_model(class_for(AutoModel, config), source, config)
    if getattr(encoder, "main_input_name", "") != "pixel_values":
        raise ModelError(
            f"{source}: a '{config.model_type}' reads {encoder.main_input_name}, not pictures; expected an image encoder"
        )
    with evaluating(encoder), torch.no_grad():
        output = run_encoder(encoder, torch.zeros(1, 3, height, width))
    states = output.last_hidden_state
    if vectors == "all" and states.dim() == 3 and getattr(encoder.config, "hidden_size", None) == states.shape[-1]:
        return encoder
    size = pooled_vector(output).shape[-1] if vectors == "pooled" else rows_of_vectors(states).shape[-1]
    grid = tuple(states.shape[2:]) if states.dim() == 4 and vectors == "all" else None
    return VisionVectors(VisionVectorsConfig(encoder.config.to_dict(), vectors, size, grid), encoder)


def pooled_vector(output: ModelOutput) -> Tensor:
    """The pooled vector (I, D) of the encoder; if it has none, the mean of its vectors."""
    pooled = getattr(output, "pooler_output", None)
    return rows_of_vectors(output.last_hidden_state).mean(1) if pooled is None else pooled.flatten(1)


def scale(pixels: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Normalised pixels (I, 3, height, width) of pictures (I, height, width, 3), uint8: (value / 255 - mean) / std, both (3,).

    It works in place on whole rows: on a CPU twelve times as fast as channel by channel, and the same to the bit.

    >>> half = torch.full((3,), 0.5)
    >>> scale(torch.tensor([[[[0, 255, 51]]]], dtype=torch.uint8), half, half).flatten().tolist()
    [-1.0, 1.0, -0.6000000238418579]
    """
    images, height, width, channels = pixels.shape
    rows = pixels.reshape(images * height, width * channels).to(torch.float32)
    scaled = rows.div_(255).sub_(mean.repeat(width)).div_(std.repeat(width))
    return scaled.view(images, height, width, channels).permute(0, 3, 1, 2)


BEFORE_THE_GRID = (0, 1, 2, 5)
"""Vectors before those of the grid: none, a class token, two of DeiT, five of DINOv2 with registers."""


def mean_with_mirrored(plain: Tensor, mirrored: Tensor, height: int, width: int) -> Tensor:
    """The mean of the features of pictures and of their mirror images, both (I, N, D), the latter turned back.

    The mean is a steadier view of a picture.

    Args:
        height, width: of the pictures.

    Raises `ModelError` if there is more than one vector for each image, and they do not form a grid.
    """
    return (plain + turned_back(mirrored, height, width)) / 2


def turned_back(vectors: Tensor, height: int, width: int) -> Tensor:
    """Vectors (I, N, D) of mirrored pictures in the order that their cells have in the pictures themselves.

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
    """How many of `count` vectors come before the grid, and the grid's rows and columns, for pictures of height x width.

    >>> grid_of(577, 384, 384), grid_of(49, 224, 224), grid_of(32, 224, 448)
    ((1, 24, 24), (0, 7, 7), (0, 4, 8))
    """
    for before in BEFORE_THE_GRID:
        rows = round(((count - before) * height / width) ** 0.5)
        if rows and (count - before) % rows == 0 and abs((count - before) // rows * height / width - rows) < 0.5:
            return before, rows, (count - before) // rows
    raise ModelError(
        f"mirror: the encoder's {count} vectors do not form a grid over the picture, so they can't be mirrored back"
    )


def drop_patches(vectors: Tensor, share: float) -> Tensor:
    """A random subset of each image's vectors, in their order (PatchDropout, Liu et al. 2023).

    A decoder that can't rely on any single vector overfits later.

    Args:
        vectors: (I, N, D), positions included. share: the share of vectors that is left out, drawn separately for each image.

    Returns:
        Vectors (I, K, D); K is N * (1 - share), rounded, and at least 1.

    >>> drop_patches(torch.arange(8.0).view(1, 8, 1), 0.25).shape
    torch.Size([1, 6, 1])
    """
    images, count, width = vectors.shape
    kept = max(1, round(count * (1 - share)))
    chosen = torch.rand(images, count, device=vectors.device).topk(kept, dim=1).indices.sort(dim=1).values
    return vectors.gather(1, chosen[..., None].expand(-1, -1, width))
