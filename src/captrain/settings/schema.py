"""All settings, in one place: the schema of recipes, flags and Python calls.

Each section is a frozen pydantic model; the docstring under a field is its help text everywhere. Leaf names are unique over
all sections, because flags use them without the section (`--rank 16`). `None` means "the model family's own default";
`captrain config show` prints what that comes to.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter
from pydantic import BaseModel, ConfigDict, Field, model_validator

Part = Literal["vision", "bridge", "language"]
Share = Annotated[float, Field(ge=0, lt=1)]


class Section(BaseModel):
    """What all sections share: no unknown keys, no changes after creation."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, use_attribute_docstrings=True, protected_namespaces=(), allow_inf_nan=False
    )


class ModelSettings(Section):
    """Which captioner, and which of its weights learn."""

    model: str = "Salesforce/blip-image-captioning-base"
    """Checkpoint to start from: a folder or a hub id. Not used when `encoder` is given."""
    encoder: str | None = None
    """Join this vision encoder (folder or hub id) with a text decoder into a new encoder-decoder captioner."""
    decoder: str | None = None
    """Text decoder to join with `encoder` (folder or hub id). Without it a new one is made from the sizes below."""
    tokenizer: str = "words"
    """Tokenizer of a new decoder: a folder or hub id, or `words` / `word-pieces` to train one on the captions."""
    vocabulary_size: Annotated[int, Field(ge=16)] = 8000
    """Largest vocabulary of a tokenizer trained on the captions."""
    decoder_layers: Annotated[int, Field(ge=1)] = 3
    """Layers of a new decoder."""
    decoder_width: Annotated[int, Field(ge=8)] = 384
    """Width of a new decoder."""
    decoder_heads: Annotated[int, Field(ge=1)] = 6
    """Attention heads of a new decoder; they divide its width."""
    decoder_dropout: Share = 0.1
    """Dropout of a new decoder (embeddings, attention, residuals)."""
    join: Literal["cross-attention", "prefix"] = "cross-attention"
    """How a joined captioner's text half gets the image: by cross-attention, or as vectors before its words (ClipCap)."""
    image_vectors: Literal["all", "pooled"] | None = None
    """What a joined text half gets of an image: all patch vectors, or the pooled one. Default: all; for a prefix pooled."""
    only_prefix: bool = False
    """Train the mapper of a prefix captioner alone; the language model stays as it is. Short for `--freeze vision language`."""
    mapper: Literal["mlp", "transformer"] = "mlp"
    """What makes a prefix of the image's vectors: one hidden layer (of a pooled vector), or a transformer."""
    prefix_length: Annotated[int, Field(ge=1)] = 10
    """Vectors of a prefix."""
    projection_length: Annotated[int, Field(ge=1)] = 10
    """Vectors that a pooled one is projected to before a transformer mapper."""
    mapper_layers: Annotated[int, Field(ge=1)] = 8
    """Layers of a transformer mapper."""
    mapper_heads: Annotated[int, Field(ge=1)] = 8
    """Attention heads of a transformer mapper; they divide the language model's width."""
    mapper_positions: bool = False
    """Give all vectors learned positions before a transformer mapper."""
    normalize_vectors: bool = False
    """Scale an image's vectors to length 1 before the mapper. Saved with the model."""
    image_size: Annotated[int, Field(ge=8)] | None = None
    """Height and width of the pictures the encoder sees, in pixels. Default: the checkpoint's own."""
    resize: Literal["squash", "crop"] | None = None
    """`squash` resizes both edges to the image size, `crop` keeps the aspect and takes the middle. Default: the checkpoint's."""
    method: Literal["lora", "full"] | None = None
    """Train LoRA adapters, or the weights themselves. Default: lora, and full for a joined captioner."""
    freeze: tuple[Part, ...] | None = None
    """Parts that do not learn when the method is `full`. Default: none, and the vision part of a joined captioner."""
    rank: Annotated[int, Field(ge=1)] = 16
    """Rank of the LoRA matrices."""
    alpha: Annotated[float, Field(gt=0)] = 32
    """LoRA scaling: the adapter's output is multiplied by alpha / rank."""
    dropout: Share = 0.05
    """Dropout on the LoRA adapters' input."""
    lora_parts: tuple[Part, ...] = ("language",)
    """Parts that get LoRA adapters."""
    lora_layers: tuple[Literal["attention", "feed-forward", "all-linear"], ...] = ("attention", "feed-forward")
    """Kinds of layers of those parts that get them; `all-linear` is every matrix but the vocabulary's."""
    target_modules: tuple[str, ...] = ()
    """Names of the modules that get LoRA adapters, instead of `lora_parts` (as in peft: the end of a module's name)."""
    lora_init: Literal["default", "gaussian", "orthogonal", "pissa", "olora"] = "default"
    """How adapters begin; `pissa` and `olora` begin with the main directions of the weights."""
    rslora: bool = False
    """Multiply the adapter's output by alpha / sqrt(rank) instead: high ranks then learn as fast as low ones."""
    dora: bool = False
    """DoRA: learn each row's length apart from its direction. Slower, often better at low ranks."""
    lora_plus: Annotated[float, Field(ge=1)] = 1.0
    """LoRA+: learning rate of the adapters' B over that of their A (its authors advise 16). 1 is plain LoRA."""
    quantize: Literal["4bit", "8bit"] | None = None
    """Keep the weights that adapters are trained beside in 4 or 8 bits; needs a GPU and `pip install 'captrain[quant]'`."""
    checkpoint_activations: bool = False
    """Compute activations again on the way back instead of keeping them: less memory, steps a third longer."""
    device: Literal["auto", "cpu", "cuda", "mps", "xpu"] = "auto"
    """Where to run. `auto` takes cuda, mps, xpu or cpu, the first that is there."""
    precision: Literal["auto", "bf16", "fp16", "fp32"] = "auto"
    """Arithmetic of matrix products. `auto` takes bf16 where the device computes it fast. Trained weights stay in fp32."""

    @model_validator(mode="after")
    def _agrees(self) -> ModelSettings:
        """Refuse what contradicts itself."""
        if self.only_prefix and (self.join != "prefix" or self.method == "lora" or self.freeze is not None):
            raise ValueError("only_prefix: goes with `join: prefix` alone, without `freeze` and without method lora")
        return self


class ReadingSettings(Section):
    """How to read a data set, where looking at it does not tell."""

    format: str | None = None
    """Form of the data: `sidecar`, `jsonl`, `coco`, `webdataset` ... (`captrain data formats`). Default: found by looking."""
    caption_extension: str = ""
    """Extension of the caption files beside images. Default: txt, then caption."""
    caption_lines: Literal["each", "whole"] = "each"
    """Whether each line of a caption file is a caption, or the whole file is one."""
    image_column: str = ""
    """Column of a table that names the image. Default: found by its usual names."""
    caption_column: str = ""
    """Column of a table with the caption. Default: found by its usual names."""
    image_root: Path | None = None
    """Folder that a table's image names are relative to. Default: the table's own."""
    image_key: str = ""
    """Members of a tar's samples that are the image, such as `jpg;png`. Default: found by looking."""
    caption_key: str = ""
    """Member of a tar's samples with the caption: `txt`, or `json/caption`, a JSON member's field. Default: found by looking."""


class Source(Section):
    """One of several data sets to train on."""

    path: str
    """Folder, file, tar pattern or hub name, as on the command line."""
    ratio: Annotated[float, Field(gt=0)] | None = None
    """Its share of an epoch's images, in proportion to the other ratios. Default: all of its images, once."""
    format: str | None = None
    """Its form. Default: found by looking."""


class DataSettings(ReadingSettings):
    """How pictures and captions become training rows."""

    sources: Annotated[tuple[Source, ...], Parameter(parse=False)] = ()
    """Several data sets at once, in recipes only: a list of `path`, `ratio` and `format`."""
    validation_share: Share = 0.1
    """Share of the training images held out when the data names no validation split."""
    captions_per_image: Literal["all", "one"] | Annotated[int, Field(ge=1)] = "all"
    """Captions of an image that ride in its row each epoch: all, one, or a number, drawn anew each epoch."""
    crop_scale: tuple[Annotated[float, Field(gt=0, le=1)], Annotated[float, Field(gt=0, le=1)]] | None = None
    """Train on random crops with at least and at most this share of the picture (LAVIS: 0.5 1.0). Default: the whole."""
    flip: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Share of training pictures shown mirrored. Pictures whose captions speak of left or right are not."""
    randaugment: tuple[Annotated[int, Field(ge=1)], Annotated[int, Field(ge=0, le=10)]] | None = None
    """RandAugment on training pictures: how many operations, and how strong out of 10 (LAVIS: 2 5)."""
    views: Annotated[int, Field(ge=1, le=64)] = 1
    """Kept views of a training picture, the plain one among them; epochs take turns. With 1, each epoch makes its own view."""
    lower_case: bool = False
    """Write captions in lower case."""
    strip_punctuation: bool = False
    """Remove punctuation from captions, as LAVIS does."""
    max_words: Annotated[int, Field(ge=1)] | None = None
    """Cut captions after so many words. Default: not by words (`max_tokens` cuts)."""
    prefix: str = ""
    """Put before every caption, and learned (a style's name, say)."""
    suffix: str = ""
    """Put after every caption, and learned."""
    replace: tuple[str, ...] = ()
    """Words to replace in captions, each as `old=new`; `old=` removes it."""
    remove_words: tuple[str, ...] = ()
    """Words or phrases that captions lose."""
    shuffle_tags: bool = False
    """Shuffle the comma-separated tags of a caption, anew in each epoch."""
    keep_tags: Annotated[int, Field(ge=0)] = 0
    """Leading tags that are neither shuffled nor dropped."""
    drop_tags: Share = 0.0
    """Share of tags left out, drawn anew in each epoch."""
    drop_captions: Share = 0.0
    """Share of captions left empty, drawn anew in each epoch."""
    prompt: str | None = None
    """Words before every caption, given and not learned; saved with the model. Default: the model's, else its family's."""
    max_tokens: Annotated[int, Field(ge=2)] = 64
    """Longest caption in tokens, its end token included; longer ones are cut and counted."""
    max_pixels: Annotated[int, Field(ge=1)] = 200_000_000
    """Pictures with more pixels than this are rejected before they are decoded."""
    keep: Literal["auto", "memory", "disk", "off"] = "auto"
    """Where what is computed once from a picture is kept: in memory while it fits the budget, else on disk."""
    memory_budget: Annotated[float, Field(ge=0)] | None = None
    """Memory for kept features or pictures, in GiB. Default: a quarter of what is free."""
    workers: Annotated[int, Field(ge=0)] | None = None
    """Threads that read and decode pictures. Default: one a core, at most 16."""

    @model_validator(mode="after")
    def _agrees(self) -> DataSettings:
        """Refuse what contradicts itself."""
        if self.crop_scale and self.crop_scale[0] > self.crop_scale[1]:
            raise ValueError(f"crop_scale {self.crop_scale}: expected the smaller share first")
        if self.views > 1 and not (self.crop_scale or self.flip or self.randaugment):
            raise ValueError(f"views {self.views}: nothing makes them differ; give crop_scale, flip or randaugment")
        if len({source.ratio is None for source in self.sources}) > 1:
            raise ValueError("sources: some have a ratio and some have none; give one to all or to none")
        if wrong := [pair for pair in self.replace if pair.find("=") < 1]:
            raise ValueError(f"replace '{wrong[0]}': expected old=new")
        return self


class TrainingSettings(Section):
    """The optimisation."""

    epochs: Annotated[int, Field(ge=1)] = 5
    """Passes over the training images."""
    batch_size: Annotated[int, Field(ge=1)] = 8
    """Images a step. Each carries its captions in one row."""
    accumulate: Annotated[int, Field(ge=1)] = 1
    """Batches whose gradients are added up before a step."""
    learning_rate: Annotated[float, Field(gt=0)] | None = None
    """Peak learning rate. Default: the family's own for the method."""
    vision_learning_rate: Annotated[float, Field(gt=0)] | None = None
    """Peak learning rate of the vision part, where it differs."""
    bridge_learning_rate: Annotated[float, Field(gt=0)] | None = None
    """Peak learning rate of the bridge, where it differs."""
    language_learning_rate: Annotated[float, Field(gt=0)] | None = None
    """Peak learning rate of the language part, where it differs."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    """AdamW's weight decay; biases and norms have none."""
    beta2: Annotated[float, Field(gt=0, lt=1)] = 0.999
    """AdamW's memory of squared gradients; 0.98 forgets faster, which suits short trainings from scratch."""
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    """How the learning rate falls after the warm-up."""
    warmup: Share = 0.05
    """Share of all steps in which the learning rate rises from 0."""
    max_gradient_norm: Annotated[float, Field(ge=0)] = 1.0
    """Gradients are scaled down to this norm; 0 leaves them as they are."""
    label_smoothing: Share | None = None
    """Share of each target given to all other tokens. Default: the family's own (BLIP 0.1, others 0)."""
    seed: int = 0
    """Seed of everything random: new weights, splits, order, dropout."""
    patience: Annotated[int, Field(ge=1)] | None = None
    """Stop after this many evaluations without a better score."""
    checkpoint_every: Annotated[int, Field(ge=1)] = 500
    """Steps between checkpoints; there is one at the end of each epoch as well."""
    keep_checkpoints: Annotated[int, Field(ge=1)] = 2
    """Checkpoints that stay on disk, the newest first."""
    log_every: Annotated[int, Field(ge=1)] = 10
    """Steps between lines of metrics.jsonl."""


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


class EvaluationSettings(Section):
    """What is measured while training."""

    evaluate_every: Annotated[int, Field(ge=1)] = 1
    """Epochs between evaluations; the last epoch always has one."""
    validation_limit: Annotated[int, Field(ge=1)] | None = None
    """Validation images that are captioned and scored. Default: all."""
    metric: Literal["cider", "bleu_4", "rouge_l", "cider_and_bleu_4", "validation_loss"] = "cider"
    """The score that decides which model is kept as the best; `cider_and_bleu_4` is their sum, as LAVIS has it."""
    samples: Annotated[int, Field(ge=0)] = 8
    """Fixed validation pictures whose captions are written down at each evaluation."""


class Settings(Section):
    """All sections together: what a recipe holds and what a run saves."""

    model: ModelSettings = ModelSettings()
    data: DataSettings = DataSettings()
    training: TrainingSettings = TrainingSettings()
    generation: GenerationSettings = GenerationSettings()
    evaluation: EvaluationSettings = EvaluationSettings()
