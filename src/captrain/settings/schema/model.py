"""Settings of the captioner, and of how it writes captions."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from captrain.settings.schema.base import Panel, PartName, Section, Share

JOINED = Panel("New captioner from an encoder and a decoder", 10.1)
LORA = Panel("LoRA", 10.2)


class ModelSettings(Section):
    """Which captioner, and which of its weights learn."""

    model: str = "Salesforce/blip-image-captioning-base"
    """Checkpoint to start from (folder or hub id). An adapter is merged into its base first. Not used with `encoder`."""
    base: str | None = None
    """Base of the adapter that is given as `model` (folder or hub id), if it has moved since the adapter was trained."""
    continue_adapter: bool = False
    """Train the adapter that is given as `model` further, instead of merging it and training a new one."""
    encoder: Annotated[str | None, JOINED] = None
    """Vision encoder (folder or hub id) of a new captioner; it is joined with a text decoder."""
    decoder: Annotated[str | None, JOINED] = None
    """Text decoder of a new captioner (folder or hub id). Default: a new one of the sizes below."""
    tokenizer: Annotated[str, JOINED] = "words"
    """Tokenizer of a new decoder: a folder or hub id, or `words` or `word-pieces` to train one on the captions."""
    vocabulary_size: Annotated[int, Field(ge=16), JOINED] = 8000
    """Largest vocabulary of a tokenizer trained on the captions."""
    decoder_layers: Annotated[int, Field(ge=1), JOINED] = 3
    """Layers of a new decoder."""
    decoder_width: Annotated[int, Field(ge=8), JOINED] = 384
    """Width of a new decoder."""
    decoder_heads: Annotated[int, Field(ge=1), JOINED] = 6
    """Attention heads of a new decoder; its width must be a multiple of them."""
    decoder_dropout: Annotated[Share, JOINED] = 0.1
    """Dropout of a new decoder (embeddings, attention, residuals)."""
    join: Annotated[Literal["cross-attention", "prefix"], JOINED] = "cross-attention"
    """How a new captioner's decoder sees the image: by cross-attention, or as vectors before its words (ClipCap)."""
    image_vectors: Annotated[Literal["all", "pooled"] | None, JOINED] = None
    """What the decoder sees of an image: all patch vectors, or the pooled one. Default: all, and pooled for a prefix."""
    only_prefix: Annotated[bool, JOINED] = False
    """Train only the mapper of a prefix captioner. Short for `--freeze vision language`."""
    mapper: Annotated[Literal["mlp", "transformer"], JOINED] = "mlp"
    """What turns the image's vectors into a prefix: one hidden layer (for a pooled vector), or a transformer."""
    prefix_length: Annotated[int, Field(ge=1), JOINED] = 10
    """Number of vectors in a prefix."""
    projection_length: Annotated[int, Field(ge=1), JOINED] = 10
    """Number of vectors that a pooled one becomes before a transformer mapper."""
    mapper_layers: Annotated[int, Field(ge=1), JOINED] = 8
    """Layers of a transformer mapper."""
    mapper_heads: Annotated[int, Field(ge=1), JOINED] = 8
    """Attention heads of a transformer mapper; the language model's width must be a multiple of them."""
    mapper_positions: Annotated[bool, JOINED] = False
    """Add learned positions to the vectors before a transformer mapper."""
    normalize_vectors: Annotated[bool, JOINED] = False
    """Scale an image's vectors to length 1 before the mapper. Saved with the model."""
    image_size: Annotated[int, Field(ge=8)] | None = None
    """Height and width of the pictures the encoder sees, in pixels. Default: the checkpoint's own."""
    resize: Literal["squash", "crop"] | None = None
    """`squash` resizes to a square, `crop` keeps the proportions and cuts out the middle. Default: the checkpoint's."""
    decode: Literal["exact", "fast"] | None = None
    """`exact` decodes JPEGs as transformers does. `fast` is quicker for large JPEGs and gives slightly different pixels.
    Saved with the model. Default: the checkpoint's, else `exact`."""
    method: Literal["lora", "full"] | None = None
    """Train LoRA adapters, or all weights. Default: lora, and full for a joined captioner."""
    freeze: tuple[PartName, ...] | None = None
    """Parts that stay frozen with the method `full`. Default: none, and the vision part of a joined captioner."""
    rank: Annotated[int, Field(ge=1), LORA] = 16
    """Rank of the LoRA matrices."""
    alpha: Annotated[float, Field(gt=0), LORA] = 32
    """LoRA scaling: the adapter's output is multiplied by alpha / rank."""
    dropout: Annotated[Share, LORA] = 0.05
    """Dropout on the LoRA adapters' input."""
    lora_parts: Annotated[tuple[PartName, ...], LORA] = ("language",)
    """Parts of the model that get LoRA adapters."""
    lora_layers: Annotated[tuple[Literal["attention", "feed-forward", "all-linear"], ...], LORA] = (
        "attention",
        "feed-forward",
    )
    """Layers that get adapters in those parts; `all-linear` means every linear layer except the vocabulary's."""
    target_modules: Annotated[tuple[str, ...], LORA] = ()
    """Names of the modules that get adapters, instead of `lora_parts`. As in peft, the end of a name is enough."""
    lora_init: Annotated[Literal["default", "gaussian", "orthogonal", "pissa", "olora"], LORA] = "default"
    """How adapters are initialised; `pissa` and `olora` start from the main directions of the weights."""
    rslora: Annotated[bool, LORA] = False
    """Scale the adapter's output by alpha / sqrt(rank), so that high ranks learn as fast as low ones."""
    dora: Annotated[bool, LORA] = False
    """DoRA: learn length and direction of the weights separately. Slower, often better at low ranks."""
    lora_plus: Annotated[float, Field(ge=1), LORA] = 1.0
    """LoRA+: how much higher the learning rate of the adapters' B is than that of A (the authors advise 16)."""
    quantize: Literal["4bit", "8bit"] | None = None
    """Load the frozen weights in 4 or 8 bits; needs a GPU and `pip install 'captrain[quant]'`."""
    checkpoint_activations: bool = False
    """Recompute activations in the backward pass: less memory, steps take a third longer."""
    device: Literal["auto", "cpu", "cuda", "mps", "xpu"] = "auto"
    """Where to run. `auto` takes the first of cuda, mps, xpu, cpu that is there."""
    precision: Literal["auto", "bf16", "fp16", "fp32"] = "auto"
    """Precision of the computation. `auto` means bf16 where the device is fast at it. Trained weights stay in fp32."""


class GenerationSettings(Section):
    """How captions are written. Saved with the model."""

    beams: Annotated[int, Field(ge=1, le=64)] = 3
    """Beams of the beam search; 1 is greedy search."""
    max_new_tokens: Annotated[int, Field(ge=1, le=4096)] = 30
    """Longest caption in tokens."""
    min_new_tokens: Annotated[int, Field(ge=0)] = 0
    """Shortest caption in tokens."""
    length_penalty: float = 1.0
    """Above 1 favours longer captions, below 1 shorter ones: a beam's score is divided by its length to this power."""
    sample: bool = False
    """Sample tokens at random (nucleus sampling) instead of taking the best."""
    top_p: Annotated[float, Field(gt=0, le=1)] = 0.9
    """With `sample`: draw from the smallest set of tokens that have this much probability together."""
    temperature: Annotated[float, Field(gt=0)] = 1.0
    """With `sample`: below 1 prefers likely tokens more, above 1 less."""
    repetition_penalty: Annotated[float, Field(ge=1)] = 1.0
    """Above 1 makes words that were written already less likely."""
    mirror: bool = False
    """Encode the mirrored picture too and average both: better captions, twice the encoding."""
