"""Image preparation as checkpoints state it: `preprocessor_config.json` in, `ImageSpec` out, and back."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, cast

from captrain.data.images import Decode, ImageSpec
from captrain.disk.writing import write_text
from captrain.errors import ModelError
from captrain.models.checkpoint.located import in_folder
from captrain.models.checkpoint.weight_files import read_json

RESAMPLING = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic", 4: "box", 5: "hamming"}
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
CONVNEXT_LARGE = 384
"""Edge from which ConvNeXt's processor squashes instead of cropping."""
Resize = Literal["squash", "crop"]


FILES = ("preprocessor_config.json", "processor_config.json")


def has_preparation(folder: str) -> bool:
    """Whether a folder states an image preparation, in either of the two files that hold one."""
    return any(Path(folder, name).is_file() for name in FILES)


def read_preparation(source: str, default_size: int | None = None) -> ImageSpec:
    """The preparation a checkpoint (folder or hub id) asks for.

    A checkpoint without one gets ImageNet's mean and deviation at `default_size`. Raises `ModelError` when neither is known.
    """
    config = _read_config(source)
    if config is None:
        if default_size is None:
            raise ModelError(f"{source}: no preprocessor_config.json, so its image size is unknown; give --image-size")
        return ImageSpec(default_size, default_size, *IMAGENET)
    try:
        return _spec(config, default_size)
    except (TypeError, ValueError, KeyError, AttributeError, ArithmeticError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ModelError(
            f"{source}: can't be loaded: {FILES[0]} states no image preparation ({reason}); download it again"
        ) from None


def _spec(config: dict[str, Any], default_size: int | None) -> ImageSpec:
    """What the configuration of an image processor says; raises many kinds of errors for values of other kinds."""
    height, width, shortest = _sizes(config, default_size or 224)
    return ImageSpec(
        height=height,
        width=width,
        mean=tuple(config.get("image_mean") or IMAGENET[0]) if config.get("do_normalize", True) else (0.0, 0.0, 0.0),
        std=tuple(config.get("image_std") or IMAGENET[1]) if config.get("do_normalize", True) else (1.0, 1.0, 1.0),
        resize="squash" if shortest is None else "crop",
        resize_to=shortest,
        resample=cast(Any, RESAMPLING.get(config.get("resample", 3), "bicubic")),
    )


def adjust(
    spec: ImageSpec, size: int | None = None, resize: Resize | None = None, decode: Decode | None = None
) -> ImageSpec:
    """The same preparation at another size, with another rule or decoded otherwise; a crop's margin keeps its proportion.

    >>> adjust(ImageSpec(224, 224, (0.5,) * 3, (0.5,) * 3, "crop", 256), size=112).resize_to
    128
    """
    if size is not None:
        margin = spec.resize_to and round(spec.resize_to * size / min(spec.height, spec.width))
        spec = replace(spec, height=size, width=size, resize_to=margin)
    if resize == "squash":
        spec = replace(spec, resize="squash", resize_to=None)
    return replace(spec, resize=resize or spec.resize, decode=decode or spec.decode)


def write_preparation(folder: Path, spec: ImageSpec, processor: str) -> None:
    """`preprocessor_config.json` that the named image processor of transformers reads as the same preparation."""
    crops = spec.resize == "crop"
    shortest = spec.resize_to or min(spec.height, spec.width)
    config = {
        "image_processor_type": processor,
        "do_convert_rgb": True,
        "do_resize": True,
        "size": {"shortest_edge": shortest} if crops else {"height": spec.height, "width": spec.width},
        "do_center_crop": crops,
        "crop_size": {"height": spec.height, "width": spec.width},
        "resample": next(code for code, name in RESAMPLING.items() if name == spec.resample),
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(spec.mean),
        "image_std": list(spec.std),
    }
    write_text(folder / "preprocessor_config.json", json.dumps(config, indent=2) + "\n")


def _read_config(source: str) -> dict[str, Any] | None:
    """The image processor's configuration, from either of the two files that hold one."""
    folder = Path(in_folder(source))
    for name in FILES:
        if (folder / name).is_file():
            content = read_json(folder / name)
            content = content.get("image_processor", content)
            if "image_mean" in content or "size" in content:
                return cast(dict[str, Any], content)
    return None


def _sizes(config: dict[str, Any], default: int) -> tuple[int, int, int | None]:
    """Height and width of the prepared picture, and the shortest edge it is resized to before a crop; None without a crop."""
    height, width = _edges(config.get("size") or default)
    if config.get("crop_pct"):  # ConvNeXt crops small pictures, and says so in its own way
        return height, width, int(height / config["crop_pct"]) if height < CONVNEXT_LARGE else None
    if not config.get("do_center_crop"):
        return height, width, None
    shortest = min(height, width)
    height, width = _edges(config.get("crop_size") or shortest)
    return height, width, max(shortest, height, width)


def _edges(size: int | dict[str, int]) -> tuple[int, int]:
    """Height and width, of a number for both, of `{"height", "width"}` or of `{"shortest_edge"}`.

    >>> _edges(224), _edges({"shortest_edge": 256})
    ((224, 224), (256, 256))
    """
    if isinstance(size, int):
        return size, size
    edge = size.get("shortest_edge", 224)
    return int(size.get("height", edge)), int(size.get("width", edge))
