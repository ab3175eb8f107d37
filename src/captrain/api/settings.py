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
    """Its share of an epoch's images, in proportion to the other ratios."""
    format: str | None
    """Its form."""
    train_split: Sequence[str] | None
    """Its splits to train on."""
    validation_split: Sequence[str] | None
    """Its splits to validate on."""
    test_split: Sequence[str] | None
    """Its splits to test the best model on."""


class ReadingOptions(TypedDict, total=False):
    """How to read a data set, where looking at it does not tell."""

    format: str | None
    """Form of the data: `sidecar`, `jsonl`, `coco`, `webdataset` ... (`captrain data formats`)."""
    caption_extension: str
    """Extension of the caption files beside images."""
    caption_lines: Literal["each", "whole"]
    """Whether each line of a caption file is a caption, or the whole file is one."""
    encoding: str
    """Encoding of caption files and tables, such as `cp932`."""
    image_column: str
    """Column of a table that names the image."""
    caption_column: str
    """Column of a table with the caption."""
    image_root: str | Path | None
    """Folder that a table's image names are relative to, and that none leaves."""
    follow_links: bool
    """Read what links in the data's folder lead to, wherever that is, and linked folders."""
    image_key: str
    """Members of a tar's samples that are the image, such as `jpg;png`."""
    caption_key: str
    """Member of a tar's samples with the caption: `txt`, or `json/caption`, a JSON member's field."""


class DataOptions(ReadingOptions, total=False):
    """How pictures and captions become training rows."""

    sources: Sequence[SourceOptions]
    """Several data sets at once, in recipes only: a list of `path`, `ratio`, `format` and names of splits."""
    train_split: Sequence[str] | None
    """Splits to train on, by the names that the data has."""
    validation_split: Sequence[str] | None
    """Splits to validate on."""
    test_split: Sequence[str] | None
    """Splits to test the best model on at the end."""
    validation_data: str | Path | None
    """Another data set to validate on, instead of a part of the training's."""
    test_data: str | Path | None
    """Another data set to test the best model on at the end."""
    validation_share: float
    """Share of the training images held out when the data names no validation split."""
    learn_from_machine_captions: bool
    """Learn from captions that captrain wrote, too."""
    captions_per_image: Literal["all", "one"] | int
    """Captions of an image that ride in its row each epoch: all, one, or a number, drawn anew each epoch."""
    crop_scale: tuple[float, float] | None
    """Train on random crops with at least and at most this share of the picture (LAVIS: 0.5 1.0)."""
    flip: float
    """Share of training pictures shown mirrored."""
    randaugment: tuple[int, int] | None
    """RandAugment on training pictures: how many operations, and how strong out of 10 (LAVIS: 2 5)."""
    views: int
    """Kept views of a training picture, the plain one among them."""
    lower_case: bool
    """Write captions in lower case."""
    strip_punctuation: bool
    """Remove punctuation from captions, as LAVIS does."""
    max_words: int | None
    """Cut captions after so many words."""
    prefix: str
    """Put before every caption, and learned (a style's name, say)."""
    suffix: str
    """Put after every caption, and learned."""
    replace: Sequence[str]
    """Words to replace in captions, each as `old=new`."""
    remove_words: Sequence[str]
    """Words or phrases that captions lose."""
    shuffle_tags: bool
    """Shuffle the comma-separated tags of a caption, anew in each epoch."""
    keep_tags: int
    """Leading tags that are neither shuffled nor dropped."""
    drop_tags: float
    """Share of tags left out, drawn anew in each epoch."""
    drop_captions: float
    """Share of captions left empty, drawn anew in each epoch."""
    accept_lost_words: bool
    """Train although many words of the captions do not come back from the tokenizer: unknown to it, or without their ..."""
    prompt: str | None
    """Words before every caption, given and not learned."""
    max_tokens: int
    """Longest caption in tokens, its end token included."""
    max_pixels: int
    """Pictures with more pixels than this are rejected before they are decoded."""
    keep: Literal["auto", "memory", "disk", "off"]
    """Where what is computed once from a picture is kept: in memory while it fits the budget, else on disk."""
    memory_budget: float | None
    """Memory for kept features or pictures, in GiB."""
    workers: int | None
    """Threads that read and decode pictures."""


class ModelOptions(TypedDict, total=False):
    """Which captioner, and which of its weights learn."""

    model: str | Path
    """Checkpoint to start from: a folder or a hub id."""
    base: str | Path | None
    """The base of an adapter given as `model` (folder or hub id), where it is no longer at the place that the adapter ..."""
    continue_adapter: bool
    """Let the adapter given as `model` go on learning, instead of merging it into its base before a new one learns."""
    encoder: str | Path | None
    """Join this vision encoder (folder or hub id) with a text decoder into a new encoder-decoder captioner."""
    decoder: str | Path | None
    """Text decoder to join with `encoder` (folder or hub id)."""
    tokenizer: str | Path
    """Tokenizer of a new decoder: a folder or hub id, or `words` / `word-pieces` to train one on the captions."""
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
    """How a joined captioner's text half gets the image: by cross-attention, or as vectors before its words (ClipCap)."""
    image_vectors: Literal["all", "pooled"] | None
    """What a joined text half gets of an image: all patch vectors, or the pooled one."""
    only_prefix: bool
    """Train the mapper of a prefix captioner alone."""
    mapper: Literal["mlp", "transformer"]
    """What makes a prefix of the image's vectors: one hidden layer (of a pooled vector), or a transformer."""
    prefix_length: int
    """Vectors of a prefix."""
    projection_length: int
    """Vectors that a pooled one is projected to before a transformer mapper."""
    mapper_layers: int
    """Layers of a transformer mapper."""
    mapper_heads: int
    """Attention heads of a transformer mapper."""
    mapper_positions: bool
    """Give all vectors learned positions before a transformer mapper."""
    normalize_vectors: bool
    """Scale an image's vectors to length 1 before the mapper."""
    image_size: int | None
    """Height and width of the pictures the encoder sees, in pixels."""
    resize: Literal["squash", "crop"] | None
    """`squash` resizes both edges to the image size, `crop` keeps the aspect and takes the middle."""
    decode: Literal["exact", "fast"] | None
    """`exact` reads JPEGs as transformers does."""
    method: Literal["lora", "full"] | None
    """Train LoRA adapters, or the weights themselves."""
    freeze: Sequence[Literal["vision", "bridge", "language"]] | None
    """Parts that do not learn when the method is `full`."""
    rank: int
    """Rank of the LoRA matrices."""
    alpha: float
    """LoRA scaling: the adapter's output is multiplied by alpha / rank."""
    dropout: float
    """Dropout on the LoRA adapters' input."""
    lora_parts: Sequence[Literal["vision", "bridge", "language"]]
    """Parts that get LoRA adapters."""
    lora_layers: Sequence[Literal["attention", "feed-forward", "all-linear"]]
    """Kinds of layers of those parts that get them."""
    target_modules: Sequence[str]
    """Names of the modules that get LoRA adapters, instead of `lora_parts` (as in peft: the end of a module's name)."""
    lora_init: Literal["default", "gaussian", "orthogonal", "pissa", "olora"]
    """How adapters begin."""
    rslora: bool
    """Multiply the adapter's output by alpha / sqrt(rank) instead: high ranks then learn as fast as low ones."""
    dora: bool
    """DoRA: learn each row's length apart from its direction."""
    lora_plus: float
    """LoRA+: learning rate of the adapters' B over that of their A (its authors advise 16)."""
    quantize: Literal["4bit", "8bit"] | None
    """Keep the weights that adapters are trained beside in 4 or 8 bits."""
    checkpoint_activations: bool
    """Compute activations again on the way back instead of keeping them: less memory, steps a third longer."""
    device: Literal["auto", "cpu", "cuda", "mps", "xpu"]
    """Where to run."""
    precision: Literal["auto", "bf16", "fp16", "fp32"]
    """Arithmetic of matrix products."""


class TrainingOptions(TypedDict, total=False):
    """The optimisation."""

    epochs: int
    """Passes over the training images."""
    batch_size: int | Literal["auto"]
    """Images a step."""
    accumulate: int
    """Batches whose gradients are added up before a step."""
    length_window: int
    """Batches that are sorted by the length of their rows together, so that less is padded."""
    optimizer: Literal["adamw", "muon", "adamw-8bit", "adafactor", "lion", "schedule-free", "prodigy"]
    """What turns gradients into steps."""
    compile: bool
    """Compile the captioner with torch.compile: slow first steps, then faster ones where it helps."""
    learning_rate: float | None
    """Peak learning rate."""
    vision_learning_rate: float | None
    """Peak learning rate of the vision part, where it differs."""
    bridge_learning_rate: float | None
    """Peak learning rate of the bridge, where it differs."""
    language_learning_rate: float | None
    """Peak learning rate of the language part, where it differs."""
    vision_layer_decay: float
    """Learning rate of each layer of the image encoder over that of the layer above it (BEiT: 0.65 to 0.9)."""
    weight_decay: float
    """Weight decay."""
    beta1: float
    """The optimizer's memory of gradients."""
    beta2: float | None
    """Its memory of squared gradients."""
    schedule: (
        Literal[
            "cosine", "linear", "constant", "step", "linear_warmup_cosine_lr", "linear_warmup_step_lr", "constant_lr"
        ]
        | None
    )
    """How the rate falls after the warm-up."""
    min_learning_rate: float
    """Floor that the learning rate falls to."""
    warmup: float
    """Share of all steps in which the learning rate rises to its peak."""
    warmup_steps: int | None
    """Steps of the warm-up, instead of the share."""
    warmup_learning_rate: float | None
    """Where the warm-up starts."""
    decay_rate: float
    """Factor of each fall of the schedules with steps."""
    decay_epochs: int
    """Epochs between the falls of `step`."""
    max_gradient_norm: float
    """Gradients are scaled down to this norm."""
    label_smoothing: float | None
    """Share of each target given to all other tokens."""
    patch_dropout: float
    """Share of an image's vectors that the text half does not see in a step, drawn anew for each image."""
    word_dropout: float
    """Share of the words that the text half reads hidden from it, drawn anew in each epoch."""
    ema: float
    """Measure and keep a running average of the weights, over about the last 1 / (1 - ema) steps (0.999, say)."""
    seed: int
    """Seed of everything random: new weights, splits, order, dropout."""
    patience: int | None
    """Stop after this many evaluations without a better score."""
    checkpoint_every: int
    """Steps between checkpoints."""
    checkpoint_every_epochs: int
    """Epochs between the checkpoints at their ends."""
    checkpoint_prefix: str
    """First part of the names of checkpoints: `checkpoint` makes `checkpoint-500`."""
    keep_checkpoints: int
    """Checkpoints that stay on disk, the newest first."""
    max_bad_steps: int
    """Steps in a row that are left out because their loss or gradient is no number, before training stops."""
    log_every: int
    """Steps between lines of metrics.jsonl."""
    trackers: Sequence[Literal["tensorboard", "wandb", "mlflow"]] | None
    """Where else to follow the run: needs `pip install 'captrain[track]'` (tensorboard), `captrain[wandb]` or ..."""
    project: str
    """What trackers file the run under: W&B's project, MLflow's experiment."""
    run_name: str | None
    """The run's name there."""


class DecodingOptions(TypedDict, total=False):
    """How captions are written, but for the beams, of which an evaluation takes several numbers."""

    max_new_tokens: int
    """Longest caption in tokens."""
    min_new_tokens: int
    """Shortest caption in tokens."""
    length_penalty: float
    """Exponent of the length that a beam's score is divided by."""
    sample: bool
    """Draw tokens at random (nucleus sampling) instead of taking the best."""
    top_p: float
    """Nucleus: the smallest set of tokens with this much probability is drawn from."""
    temperature: float
    """Less than 1 sharpens what is drawn from, more flattens it."""
    repetition_penalty: float
    """Divides the score of tokens that were written already."""
    mirror: bool
    """Let the encoder see a picture mirrored as well, and caption the mean, turned back: better captions, twice the ..."""


class GenerationOptions(DecodingOptions, total=False):
    """How captions are written. Saved with the model."""

    beams: int
    """Beams of the search."""


class EvaluationOptions(TypedDict, total=False):
    """What is measured while training."""

    evaluate_every: int
    """Epochs between evaluations."""
    validation_limit: int | None
    """Validation images that are captioned and scored."""
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
    """The score that decides which model is kept as the best."""
    tokenize: Literal["ptb", "unicode", "characters", "auto"]
    """How captions become words to score."""
    samples: int
    """Fixed validation pictures whose captions are written down at each evaluation."""


class DistributedOptions(TypedDict, total=False):
    """Over which devices a training is spread, and how. It says nothing about what is learned."""

    devices: str | None
    """GPUs of this machine to train on: `all`, or numbers such as `0,1`."""
    strategy: Literal["ddp", "fsdp", "deepspeed"]
    """`ddp`: the whole model on each device."""
    zero_stage: Literal[1, 2, 3]
    """What ZeRO shares out: 1 the optimizer's memory, 2 gradients as well, 3 weights as well."""
    zero_offload: bool
    """Keep what ZeRO shares out in the memory of the machine: room for larger models, slower steps."""


class ComputingOptions(TypedDict, total=False):
    """How a finished captioner runs over pictures. These are flags only; recipes have them in `model` and `data`."""

    batch_size: int
    """Pictures captioned at a time."""
    device: Literal["auto", "cpu", "cuda", "mps", "xpu"]
    """Where to run."""
    precision: Literal["auto", "bf16", "fp16", "fp32"]
    """Arithmetic of matrix products."""
    workers: int | None
    """Threads that read and decode pictures."""
    max_pixels: int
    """Pictures with more pixels than this are rejected before they are decoded."""


class TrainSettings(
    DataOptions, ModelOptions, TrainingOptions, GenerationOptions, EvaluationOptions, DistributedOptions, total=False
):
    """All settings of a training: those of a recipe, without its sections."""
