"""Settings of the captioner.

Settings of how captions are written.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from captrain.settings.schema.base import Part, Section, Share, panel

JOINED = panel("A captioner that is joined anew", 10.1)
LORA = panel("LoRA", 10.2)


class ModelSettings(Section):
    """Which captioner, and which of its weights learn."""

    model: str = "Salesforce/blip-image-captioning-base"
    """Checkpoint to start from: a folder or a hub id; an adapter is merged into its base first. Not used with `encoder`."""
    base: str | None = None
    """The base of an adapter given as `model` (folder or hub id), where it is no longer at the place that the adapter names."""
    continue_adapter: bool = False
    """Let the adapter given as `model` go on learning, instead of merging it into its base before a new one learns."""
    encoder: Annotated[str | None, JOINED] = None
    """Join this vision encoder (folder or hub id) with a text decoder into a new encoder-decoder captioner."""
    decoder: Annotated[str | None, JOINED] = None
    """Text decoder to join with `encoder` (folder or hub id). Without it a new one is made from the sizes below."""
    tokenizer: Annotated[str, JOINED] = "words"
    """Tokenizer of a new decoder: a folder or hub id, or `words` / `word-pieces` to train one on the captions."""
    vocabulary_size: Annotated[int, Field(ge=16), JOINED] = 8000
    """Largest vocabulary of a tokenizer trained on the captions."""
    decoder_layers: Annotated[int, Field(ge=1), JOINED] = 3
    """Layers of a new decoder."""
    decoder_width: Annotated[int, Field(ge=8), JOINED] = 384
    """Width of a new decoder."""
    decoder_heads: Annotated[int, Field(ge=1), JOINED] = 6
    """Attention heads of a new decoder; they divide its width."""
    decoder_dropout: Annotated[Share, JOINED] = 0.1
    """Dropout of a new decoder (embeddings, attention, residuals)."""
    join: Annotated[Literal["cross-attention", "prefix"], JOINED] = "cross-attention"
    """How a joined captioner's text half gets the image: by cross-attention, or as vectors before its words (ClipCap)."""
    image_vectors: Annotated[Literal["all", "pooled"] | None, JOINED] = None
    """What a joined text half gets of an image: all patch vectors, or the pooled one. Default: all; for a prefix pooled."""
    only_prefix: Annotated[bool, JOINED] = False
    """Train the mapper of a prefix captioner alone; the language model stays as it is. Short for `--freeze vision language`."""
    mapper: Annotated[Literal["mlp", "transformer"], JOINED] = "mlp"
    """What makes a prefix of the image's vectors: one hidden layer (of a pooled vector), or a transformer."""
    prefix_length: Annotated[int, Field(ge=1), JOINED] = 10
    """Vectors of a prefix."""
    projection_length: Annotated[int, Field(ge=1), JOINED] = 10
    """Vectors that a pooled one is projected to before a transformer mapper."""
    mapper_layers: Annotated[int, Field(ge=1), JOINED] = 8
    """Layers of a transformer mapper."""
    mapper_heads: Annotated[int, Field(ge=1), JOINED] = 8
    """Attention heads of a transformer mapper; they divide the language model's width."""
    mapper_positions: Annotated[bool, JOINED] = False
    """Give all vectors learned positions before a transformer mapper."""
    normalize_vectors: Annotated[bool, JOINED] = False
    """Scale an image's vectors to length 1 before the mapper. Saved with the model."""
    image_size: Annotated[int, Field(ge=8)] | None = None
    """Height and width of the pictures the encoder sees, in pixels. Default: the checkpoint's own."""
    resize: Literal["squash", "crop"] | None = None
    """`squash` resizes both edges to the image size, `crop` keeps the aspect and takes the middle. Default: the checkpoint's."""
    decode: Literal["exact", "fast"] | None = None
    """`exact` reads JPEGs as transformers does. `fast` is quicker where they are far larger than the image size, and gives
    slightly other pixels. Saved with the model. Default: the checkpoint's, else `exact`."""
    method: Literal["lora", "full"] | None = None
    """Train LoRA adapters, or the weights themselves. Default: lora, and full for a joined captioner."""
    freeze: tuple[Part, ...] | None = None
    """Parts that do not learn when the method is `full`. Default: none, and the vision part of a joined captioner."""
    rank: Annotated[int, Field(ge=1), LORA] = 16
    """Rank of the LoRA matrices."""
    alpha: Annotated[float, Field(gt=0), LORA] = 32
    """LoRA scaling: the adapter's output is multiplied by alpha / rank."""
    dropout: Annotated[Share, LORA] = 0.05
    """Dropout on the LoRA adapters' input."""
    lora_parts: Annotated[tuple[Part, ...], LORA] = ("language",)
    """Parts that get LoRA adapters."""
    lora_layers: Annotated[tuple[Literal["attention", "feed-forward", "all-linear"], ...], LORA] = (
        "attention",
        "feed-forward",
    )
    """Kinds of layers of those parts that get them; `all-linear` is every matrix but the vocabulary's."""
    target_modules: Annotated[tuple[str, ...], LORA] = ()
    """Names of the modules that get LoRA adapters, instead of `lora_parts` (as in peft: the end of a module's name)."""
    lora_init: Annotated[Literal["default", "gaussian", "orthogonal", "pissa", "olora"], LORA] = "default"
    """How adapters begin; `pissa` and `olora` begin with the main directions of the weights."""
    rslora: Annotated[bool, LORA] = False
    """Multiply the adapter's output by alpha / sqrt(rank) instead: high ranks then learn as fast as low ones."""
    dora: Annotated[bool, LORA] = False
    """DoRA: learn each row's length apart from its direction. Slower, often better at low ranks."""
    lora_plus: Annotated[float, Field(ge=1), LORA] = 1.0
    """LoRA+: learning rate of the adapters' B over that of their A (its authors advise 16). 1 is plain LoRA."""
    quantize: Literal["4bit", "8bit"] | None = None
    """Keep the weights that adapters are trained beside in 4 or 8 bits; needs a GPU and `pip install 'captrain[quant]'`."""
    checkpoint_activations: bool = False
    """Compute activations again on the way back instead of keeping them: less memory, steps a third longer."""
    device: Literal["auto", "cpu", "cuda", "mps", "xpu"] = "auto"
    """Where to run. `auto` takes cuda, mps, xpu or cpu, the first that is there."""
    precision: Literal["auto", "bf16", "fp16", "fp32"] = "auto"
    """Arithmetic of matrix products. `auto` takes bf16 where the device computes it fast. Trained weights stay in fp32."""


class GenerationSettings(Section):
    """How captions are written. Saved with the model."""

    beams: Annotated[int, Field(ge=1, le=64)] = 3
    """Beams of the search; 1 is greedy."""
    max_new_tokens: Annotated[int, Field(ge=1, le=4096)] = 30
    """Longest caption in tokens."""
    min_new_tokens: Annotated[int, Field(ge=0)] = 0
    """Shortest caption in tokens."""
    length_penalty: float = 1.0
    """Exponent of the length that a beam's score is divided by; more than 1 favours longer captions."""
    sample: bool = False
    """Draw tokens at random (nucleus sampling) instead of taking the best."""
    top_p: Annotated[float, Field(gt=0, le=1)] = 0.9
    """Nucleus: the smallest set of tokens with this much probability is drawn from."""
    temperature: Annotated[float, Field(gt=0)] = 1.0
    """Less than 1 sharpens what is drawn from, more flattens it."""
    repetition_penalty: Annotated[float, Field(ge=1)] = 1.0
    """Divides the score of tokens that were written already; 1 does nothing."""
    mirror: bool = False
    """Let the encoder see a picture mirrored as well, and caption the mean, turned back: better captions, twice the encoding."""
