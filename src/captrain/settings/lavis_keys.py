"""What the keys of LAVIS's captioning files come to: taken as they are, of no matter here, or without counterpart, and why."""

from __future__ import annotations

from typing import Any, Literal

Kind = Literal["a whole number", "a number", "true or false", "a name", "text"]

CROPS: dict[str, tuple[int, int] | None] = {"blip_image_train": (2, 5), "blip2_image_train": None}
"""Processors that crop and flip, and their RandAugment."""

CAPTIONS_AN_IMAGE = {"coco_caption": 5, "flickr30k_caption": 5, "nocaps": 10}
"""How many captions an image of LAVIS's own data sets has."""

AS_IT_IS: dict[str, tuple[str, Kind]] = {
    "init_lr": ("learning_rate", "a number"),
    "weight_decay": ("weight_decay", "a number"),
    "beta2": ("beta2", "a number"),
    "max_epoch": ("epochs", "a whole number"),
    "accum_grad_iters": ("accumulate", "a whole number"),
    "grad_norm_clip": ("max_gradient_norm", "a number"),
    "num_workers": ("workers", "a whole number"),
    "seed": ("seed", "a whole number"),
    "log_freq": ("log_every", "a whole number"),
    "num_beams": ("beams", "a whole number"),
    "use_nucleus_sampling": ("sample", "true or false"),
    "top_p": ("top_p", "a number"),
    "temperature": ("temperature", "a number"),
    "length_penalty": ("length_penalty", "a number"),
    "repetition_penalty": ("repetition_penalty", "a number"),
}
"""Keys of `run` that are settings under another name."""

_LAUNCHER = (
    "how many processes there are, and how they meet, is told by the launcher (torchrun, accelerate), not by a recipe"
)
_PICKLE = "LAVIS's .pth files are pickles in its own layout, which is not read; give `model` a folder or hub id for transformers"
_WEIGHTS = "is decided by the checkpoint's own config.json"

LEFT_OUT: dict[str, str] = {
    "lr_layer_decay": "changes nothing in LAVIS, whose schedules write one rate into all groups; here `vision_layer_decay` does",
    "batch_size_eval": "validation goes in batches of the training's size; `captrain evaluate` has --batch-size",
    "output_dir": "is the second word of the command: captrain train DATA OUT",
    "resume_ckpt_path": "`captrain train ... --resume` goes on from the run folder's own last checkpoint; " + _PICKLE,
    "runner": "epochs are passes over the data here",
    "max_iters": "the length of a training is told in epochs here",
    "iters_per_inner_epoch": "the length of a training is told in epochs here",
    "save_freq": "there is a checkpoint every checkpoint_every steps and at the end of each epoch",
    "save_last": "the newest checkpoints stay, the best model has a place of its own",
    "report_metric": "scores are always computed",
    "use_dist_eval_sampler": _LAUNCHER,
    "world_size": _LAUNCHER,
    "dist_url": _LAUNCHER,
    "dist_backend": _LAUNCHER,
    "distributed": _LAUNCHER,
    "rank": _LAUNCHER,
    "gpu": _LAUNCHER,
    "pretrained": _PICKLE,
    "finetuned": _PICKLE,
    "vit_ckpt_layer": "`checkpoint_activations` is for all layers here; results are the same",
    "vit_drop_path_rate": "BLIP's encoder in transformers drops no paths",
    "vit_layer_norm_epsilon": _WEIGHTS,
    "med_config_path": _WEIGHTS,
    "mean": "is decided by the checkpoint's own preprocessor_config.json",
    "std": "is decided by the checkpoint's own preprocessor_config.json",
    "annotations": "are the first word of the command: captrain train DATA OUT; `captrain data get` fetches COCO's",
    "data_dir": "the data set is the first word of the command: captrain train DATA OUT",
    "config_path": "files that this one builds on are not read; import them by themselves",
    "ann_root": "the data set is the first word of the command; `captrain data get coco-karpathy DATA` fetches COCO's lists",
    "coco_gt_root": "references are the captions of the validation split",
    "annotation_file": "references are the captions of the data set that is evaluated",
    "img_ids": "a data set is evaluated whole, or its first pictures (--limit); keep those pictures in a table of their own",
    "inference_method": "captions are always written, not ranked",
    "val_freq": "there is a validation at the end of each epoch, or every evaluate_every steps",
    "load_pretrained": "begins with the checkpoint that `model` names",
    "vit_model": _WEIGHTS,
    "opt_model": _WEIGHTS,
    "t5_model": _WEIGHTS,
    "num_query_token": _WEIGHTS,
    "drop_path_rate": "BLIP-2's encoder in transformers drops no paths",
    "vit_precision": "one `precision` is for all parts here",
    "apply_lemmatizer": "captions stay as they are written",
}
"""Keys without counterpart in any section, and the reason."""

NO_MATTER: dict[str, tuple[Any, ...]] = {
    "lr_layer_decay": (1, 1.0),
    "runner": ("runner_base",),
    "report_metric": (True,),
    "vit_ckpt_layer": (0,),
    "vit_drop_path_rate": (0, 0.0),
    "distributed": (False,),
    "world_size": (1,),
    "inference_method": ("generate",),
    "val_freq": (1,),
    "load_pretrained": (True,),
    "vit_model": ("eva_clip_g",),
    "opt_model": ("facebook/opt-2.7b", "facebook/opt-6.7b"),
    "t5_model": ("google/flan-t5-xl", "google/flan-t5-xxl"),
    "num_query_token": (32,),
    "drop_path_rate": (0, 0.0),
    "apply_lemmatizer": (False,),
}
"""Values of those that do what captrain does anyway."""

_PROCESSOR = frozenset({"name"})

SECTIONS: dict[str, frozenset[str]] = {
    "model": frozenset(
        {"arch", "model_type", "load_finetuned", "image_size", "prompt", "vit_type", "max_txt_len", "vit_grad_ckpt"}
    )
    | {"use_grad_checkpoint", "freeze_vit"},
    "datasets": frozenset(
        {"vis_processor", "text_processor", "images", "build_info", "data_type", "sample_ratio", "batch_size"}
    ),
    "vis_processor": _PROCESSOR | {"image_size", "min_scale", "max_scale"},
    "text_processor": _PROCESSOR | {"prompt", "max_words"},
    "run": frozenset(AS_IT_IS)
    | {"task", "lr_sched", "min_lr", "warmup_lr", "warmup_steps", "lr_decay_rate"}
    | {"train_splits", "valid_splits", "test_splits"}
    | {"max_len", "min_len", "batch_size_train", "device", "amp", "evaluate"},
}
"""Keys of each section that are read."""
