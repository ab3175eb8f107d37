"""Settings as keyword arguments, for editors and type checkers. Written from `captrain.settings.schema`: do not edit.

`python tests/unit/test_api_settings.py` writes this file again when the schema has changed.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, TypedDict


class SourceOptions(TypedDict, total=False):
    """One of several data sets to train on."""

    path: str | Path
    """Folder, file, tar pattern or hub name, as on the command line."""
    ratio: float | None
    """Its share of an epoch's images, relative to the other ratios."""
    format: str | None
    """Its format."""
    train_split: Sequence[str] | None
    """Its splits to train on."""
    validation_split: Sequence[str] | None
    """Its splits to validate on."""
    test_split: Sequence[str] | None
    """Its splits to test the best model on."""


class ReadingOptions(TypedDict, total=False):
    """How to read a data set, where its files do not show it."""

    format: str | None
    """Format of the data: `sidecar`, `jsonl`, `coco`, `webdataset` ... (see `captrain data formats`)."""
    caption_extension: str
    """Extension of the caption files beside images."""
    caption_lines: Literal["each", "whole"]
    """Whether each line of a caption file is a caption, or the whole file is one."""
    encoding: str
    """Text encoding of caption files and tables, such as `cp932`."""
    image_column: str
    """Column of a table with the image's file name."""
    caption_column: str
    """Column of a table with the caption."""
    image_root: str | Path | None
    """Folder of the images that a table names."""
    follow_links: bool
    """Follow links in the data's folder, wherever they lead."""
    image_key: str
    """File extensions of the image in tar shards, such as `jpg;png`."""
    caption_key: str
    """Where the caption is in tar shards: `txt`, or `json/caption` for a field of a JSON file."""


class DataOptions(ReadingOptions, total=False):
    """How pictures and captions become training rows."""

    sources: Sequence[SourceOptions]
    """Several data sets at once, in recipes only: a list of `path`, `ratio`, `format` and names of splits."""
    train_split: Sequence[str] | None
    """Splits to train on, by the data's own names."""
    validation_split: Sequence[str] | None
    """Splits to validate on."""
    test_split: Sequence[str] | None
    """Splits to test the best model on at the end."""
    validation_data: str | Path | None
    """Another data set to validate on."""
    test_data: str | Path | None
    """Another data set to test the best model on at the end."""
    validation_share: float
    """Share of the training images to hold out for validation if the data has no validation split."""
    learn_from_machine_captions: bool
    """Train on captions that captrain wrote, too."""
    captions_per_image: Literal["all", "one"] | int
    """Captions of each image to train on in an epoch: all, one, or a number that is drawn again in each epoch."""
    crop_scale: tuple[float, float] | None
    """Train on random crops: smallest and largest share of the picture (LAVIS: 0.5 1.0)."""
    flip: float
    """Share of training pictures that are mirrored, except those whose captions say left or right."""
    randaugment: tuple[int, int] | None
    """RandAugment on training pictures: number of operations and strength from 0 to 10 (LAVIS: 2 5)."""
    views: int
    """Number of views of a training picture to cache, the plain one included."""
    lower_case: bool
    """Make captions lower case."""
    strip_punctuation: bool
    """Remove punctuation from captions, as LAVIS does."""
    max_words: int | None
    """Cut captions after this many words."""
    prefix: str
    """Text to put before every caption and to learn, such as the name of a style."""
    suffix: str
    """Text to put after every caption and to learn."""
    replace: Sequence[str]
    """Words to replace in captions, each as `old=new`."""
    remove_words: Sequence[str]
    """Words or phrases to remove from captions."""
    shuffle_tags: bool
    """Shuffle the comma-separated tags of a caption in each epoch."""
    keep_tags: int
    """Leading tags that are neither shuffled nor dropped."""
    drop_tags: float
    """Share of tags to leave out, drawn again in each epoch."""
    drop_captions: float
    """Share of captions to leave empty, drawn again in each epoch."""
    accept_lost_words: bool
    """Train even if the tokenizer loses many words of the captions (unknown words, accents)."""
    prompt: str | None
    """Words before every caption that are given, not learned."""
    max_tokens: int
    """Longest caption in tokens, end token included."""
    max_pixels: int
    """Pictures with more pixels than this are rejected before they are decoded."""
    cache_features: Literal["auto", "memory", "disk", "off"]
    """Where features that are computed once are cached: `auto` means in memory if they fit, else on disk."""
    cache_dtype: Literal["auto", "bfloat16", "float16", "float32", "int8"]
    """Number format of cached features: `int8` halves them, with a scale for each vector."""
    memory_budget: float | None
    """Memory for cached features or pictures, in GiB."""
    workers: int | None
    """Threads that read and decode pictures."""


class ModelOptions(TypedDict, total=False):
    """Which captioner, and which of its weights learn."""

    model: str | Path
    """Checkpoint to start from (folder or hub id)."""
    base: str | Path | None
    """Base of the adapter that is given as `model` (folder or hub id), if it has moved since the adapter was trained."""
    continue_adapter: bool
    """Train the adapter that is given as `model` further, instead of merging it and training a new one."""
    encoder: str | Path | None
    """Vision encoder (folder or hub id) of a new captioner."""
    decoder: str | Path | None
    """Text decoder of a new captioner (folder or hub id)."""
    tokenizer: str | Path
    """Tokenizer of a new decoder: a folder or hub id, or `words` or `word-pieces` to train one on the captions."""
    vocabulary_size: int
    """Largest vocabulary of a tokenizer trained on the captions."""
    decoder_layers: int
    """Layers of a new decoder."""
    decoder_width: int
    """Width of a new decoder."""
    decoder_heads: int
    """Attention heads of a new decoder."""
    decoder_dropout: float
    """Dropout of a new decoder (embeddings, attention, residuals)."""
    join: Literal["cross-attention", "prefix"]
    """How a new captioner's decoder sees the image: by cross-attention, or as vectors before its words (ClipCap)."""
    image_vectors: Literal["all", "pooled"] | None
    """What the decoder sees of an image: all patch vectors, or the pooled one."""
    only_prefix: bool
    """Train only the mapper of a prefix captioner."""
    mapper: Literal["mlp", "transformer"]
    """What turns the image's vectors into a prefix: one hidden layer (for a pooled vector), or a transformer."""
    prefix_length: int
    """Number of vectors in a prefix."""
    projection_length: int
    """Number of vectors that a pooled one becomes before a transformer mapper."""
    mapper_layers: int
    """Layers of a transformer mapper."""
    mapper_heads: int
    """Attention heads of a transformer mapper."""
    mapper_positions: bool
    """Add learned positions to the vectors before a transformer mapper."""
    normalize_vectors: bool
    """Scale an image's vectors to length 1 before the mapper."""
    image_size: int | None
    """Height and width of the pictures the encoder sees, in pixels."""
    resize: Literal["squash", "crop"] | None
    """`squash` resizes to a square, `crop` keeps the proportions and cuts out the middle."""
    decode: Literal["exact", "fast"] | None
    """`exact` decodes JPEGs as transformers does."""
    method: Literal["lora", "full"] | None
    """Train LoRA adapters, or all weights."""
    freeze: Sequence[Literal["vision", "bridge", "language"]] | None
    """Parts that stay frozen with the method `full`."""
    rank: int
    """Rank of the LoRA matrices."""
    alpha: float
    """LoRA scaling: the adapter's output is multiplied by alpha / rank."""
    dropout: float
    """Dropout on the LoRA adapters' input."""
    lora_parts: Sequence[Literal["vision", "bridge", "language"]]
    """Parts of the model that get LoRA adapters."""
    lora_layers: Sequence[Literal["attention", "feed-forward", "all-linear"]]
    """Layers that get adapters in those parts."""
    target_modules: Sequence[str]
    """Names of the modules that get adapters, instead of `lora_parts`."""
    lora_init: Literal["default", "gaussian", "orthogonal", "pissa", "olora"]
    """How adapters are initialised."""
    rslora: bool
    """Scale the adapter's output by alpha / sqrt(rank), so that high ranks learn as fast as low ones."""
    dora: bool
    """DoRA: learn length and direction of the weights separately."""
    lora_plus: float
    """LoRA+: how much higher the learning rate of the adapters' B is than that of A (the authors advise 16)."""
    quantize: Literal["4bit", "8bit"] | None
    """Load the frozen weights in 4 or 8 bits."""
    checkpoint_activations: bool
    """Recompute activations in the backward pass: less memory, steps take a third longer."""
    device: Literal["auto", "cpu", "cuda", "mps", "xpu"]
    """Where to run."""
    precision: Literal["auto", "bf16", "fp16", "fp32"]
    """Precision of the computation."""


class TrainingOptions(TypedDict, total=False):
    """The optimisation."""

    epochs: int
    """Passes over the training images."""
    batch_size: int | Literal["auto"]
    """Images per step, each with all its captions."""
    accumulate: int
    """Batches per step."""
    length_window: int
    """Batches to sort together by length, so that less is padded."""
    optimizer: Literal["adamw", "muon", "adamw-8bit", "adafactor", "lion", "schedule-free", "prodigy"]
    """The optimizer."""
    compile: bool
    """Use torch.compile: the first steps are slow, later ones often faster."""
    learning_rate: float | None
    """Peak learning rate."""
    vision_learning_rate: float | None
    """Peak learning rate of the vision part, if it differs."""
    bridge_learning_rate: float | None
    """Peak learning rate of the bridge, if it differs."""
    language_learning_rate: float | None
    """Peak learning rate of the language part, if it differs."""
    vision_layer_decay: float
    """Factor of the learning rate from each layer of the image encoder to the one below it (BEiT: 0.65 to 0.9)."""
    weight_decay: float
    """Weight decay, except for biases, norms and other vectors."""
    beta1: float
    """The optimizer's memory of gradients."""
    beta2: float | None
    """The optimizer's memory of squared gradients."""
    schedule: (
        Literal[
            "cosine", "linear", "constant", "step", "linear_warmup_cosine_lr", "linear_warmup_step_lr", "constant_lr"
        ]
        | None
    )
    """How the rate falls after the warm-up."""
    min_learning_rate: float
    """Learning rate at the end of the schedule."""
    warmup: float
    """Share of all steps in which the learning rate rises to its peak."""
    warmup_steps: int | None
    """Steps of the warm-up, instead of a share."""
    warmup_learning_rate: float | None
    """Learning rate at the start of the warm-up."""
    decay_rate: float
    """Factor by which the learning rate falls in schedules with steps."""
    decay_epochs: int
    """Epochs between the steps of the schedule `step`."""
    max_gradient_norm: float
    """Largest norm of the gradients."""
    label_smoothing: float | None
    """Share of each target that goes to all other tokens."""
    patch_dropout: float
    """Share of an image's vectors that are hidden from the decoder in each step."""
    word_dropout: float
    """Share of the words that are hidden from the decoder as it reads, drawn again in each epoch."""
    ema: float
    """Evaluate and save a running average of the weights over about the last 1 / (1 - ema) steps, with 0.999 for example."""
    seed: int
    """Seed of everything random: new weights, splits, order, dropout."""
    patience: int | None
    """Stop after this many evaluations without a better score."""
    checkpoint_every: int
    """Steps between checkpoints."""
    checkpoint_every_epochs: int
    """Epochs between the checkpoints at the end of epochs."""
    checkpoint_prefix: str
    """First part of the names of checkpoints: `checkpoint` makes `checkpoint-500`."""
    keep_checkpoints: int
    """Number of checkpoints to keep."""
    max_bad_steps: int
    """Stop after this many steps in a row with a non-finite loss or gradient."""
    log_every: int
    """Steps between lines of metrics.jsonl."""
    trackers: Sequence[Literal["tensorboard", "wandb", "mlflow"]] | None
    """Trackers to log to."""
    project: str
    """Project of the run in trackers (W&B's project, MLflow's experiment)."""
    run_name: str | None
    """Name of the run in trackers."""


class DecodingOptions(TypedDict, total=False):
    """How captions are written, but for the beams, of which an evaluation takes several numbers."""

    max_new_tokens: int
    """Longest caption in tokens."""
    min_new_tokens: int
    """Shortest caption in tokens."""
    length_penalty: float
    """Above 1 favours longer captions, below 1 shorter ones: a beam's score is divided by its length to this power."""
    sample: bool
    """Sample tokens at random (nucleus sampling) instead of taking the best."""
    top_p: float
    """With `sample`: draw from the smallest set of tokens that have this much probability together."""
    temperature: float
    """With `sample`: below 1 prefers likely tokens more, above 1 less."""
    repetition_penalty: float
    """Above 1 makes words that were written already less likely."""
    mirror: bool
    """Encode the mirrored picture too and average both: better captions, twice the encoding."""


class GenerationOptions(DecodingOptions, total=False):
    """How captions are written. Saved with the model."""

    beams: int
    """Beams of the beam search."""


class EvaluationOptions(TypedDict, total=False):
    """What is measured while training."""

    evaluate_every: int
    """Epochs between evaluations."""
    validation_limit: int | None
    """Number of validation images to caption and score."""
    metric: (
        Literal[
            "cider",
            "bleu_1",
            "bleu_2",
            "bleu_3",
            "bleu_4",
            "rouge_l",
            "meteor",
            "spice",
            "cider_and_bleu_4",
            "validation_loss",
        ]
        | str
    )
    """Score that chooses the best model."""
    tokenize: Literal["ptb", "unicode", "characters", "auto"]
    """How captions are split into words for scoring."""
    samples: int
    """Number of validation pictures whose captions are logged at each evaluation."""


class DistributedOptions(TypedDict, total=False):
    """Which devices a training uses, and how they share it. What is learned stays the same."""

    devices: str | None
    """GPUs to train on: `all`, or numbers such as `0,1`."""
    strategy: Literal["ddp", "fsdp", "deepspeed"]
    """`ddp` puts the whole model on each device, `fsdp` shards it (FSDP2), `deepspeed` uses ZeRO."""
    zero_stage: Literal[1, 2, 3]
    """What ZeRO shards: 1 the optimizer's state, 2 gradients too, 3 weights too."""
    zero_offload: bool
    """Keep what ZeRO shards in main memory: larger models fit, steps are slower."""


class ComputingOptions(TypedDict, total=False):
    """How a finished captioner runs over pictures. These are flags only; recipes have them in `model` and `data`."""

    batch_size: int
    """Pictures per batch."""
    device: Literal["auto", "cpu", "cuda", "mps", "xpu"]
    """Where to run."""
    precision: Literal["auto", "bf16", "fp16", "fp32"]
    """Precision of the computation."""
    workers: int | None
    """Threads that read and decode pictures."""
    max_pixels: int
    """Pictures with more pixels than this are rejected before they are decoded."""


class TrainSettings(
    DataOptions, ModelOptions, TrainingOptions, GenerationOptions, EvaluationOptions, DistributedOptions, total=False
):
    """All settings of a training: those of a recipe, without its sections."""
