"""The data sets that `captrain data get` knows: where their files are, how large, under which licence, with which checksum.

Checksums are those that others published beside the address (LAVIS's `defaults_cap.yaml` for COCO). If nobody did, there is
none: the first fetch notes what it got, and later ones compare.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

LAVIS = "https://storage.googleapis.com/sfr-vision-language-research/datasets"
COCO = "http://images.cocodataset.org/zips"  # its certificate is for another name: https does not work there
KARPATHY = "https://cs.stanford.edu/people/karpathy/deepimagesent/caption_datasets.zip"
MB, GB = 1000**2, 1000**3


@dataclass(frozen=True, slots=True)
class CatalogueFile:
    """One file to fetch.

    Args:
        name: what it is called, at the source, at a mirror and in the folder. url: the source.
        size: bytes, exact where `exact`. checksum: `md5:...`, or "" where nobody published one.
        unpack: for a zip, names of the members to take: `*.json`, `train2014/*`; "" for a plain file.
        saved_as: what it is called in the folder, where that differs.
        pictures: whether pictures are in it (then a local copy can take its place).
    """

    name: str
    url: str
    size: int
    exact: bool = False
    checksum: str = ""
    unpack: str = ""
    saved_as: str = ""
    pictures: bool = False


@dataclass(frozen=True, slots=True)
class PictureList:
    """Pictures that a fetched table names, each by a web address.

    Args:
        table: the table's name in the folder. form: `tsv`, caption and address; or `coco`, a COCO JSON with `coco_url`.
        count: about how many. size: about how many bytes together.
        own_hosts: whether each address is at a host of its own, so that a mirror can't have them.
    """

    table: str
    form: Literal["tsv", "coco"]
    count: int
    size: int
    own_hosts: bool


@dataclass(frozen=True, slots=True)
class DataSet:
    """A data set of the catalogue.

    Args:
        title: what it is. licence: of captions and of pictures. page: where to read about it.
        files: to fetch. lists: of pictures to fetch by address.
        request: where pictures are to be asked for, if they are handed out by hand; "" otherwise.
        folders: subfolders in which a local copy has its pictures, all of them there; ("",) for the folder itself.
    """

    title: str
    licence: str
    page: str
    files: tuple[CatalogueFile, ...]
    lists: tuple[PictureList, ...] = ()
    request: str = ""
    folders: tuple[str, ...] = ("",)


CATALOGUE: dict[str, DataSet] = {
    "coco-karpathy": DataSet(
        title="COCO 2014 captions in Karpathy's split: 113,287 pictures to train on, 5,000 each to validate and test",
        licence="captions CC BY 4.0; pictures under the terms of Flickr, each its owner's",
        page="https://cocodataset.org/#termsofuse",
        files=(
            CatalogueFile(
                "coco_karpathy_train.json",
                f"{LAVIS}/coco_karpathy_train.json",
                78 * MB,
                checksum="md5:aa31ac474cf6250ebb81d18348a07ed8",
            ),
            CatalogueFile(
                "coco_karpathy_val.json",
                f"{LAVIS}/coco_karpathy_val.json",
                3 * MB,
                checksum="md5:b273847456ef5580e33713b1f7de52a0",
            ),
            CatalogueFile(
                "coco_karpathy_test.json",
                f"{LAVIS}/coco_karpathy_test.json",
                3 * MB,
                checksum="md5:3ff34b0ef2db02d01c37399f6a2a6cd1",
            ),
            CatalogueFile(
                "train2014.zip",
                f"{COCO}/train2014.zip",
                13_510_573_713,
                exact=True,
                checksum="md5:0da8c0bd3d6becc4dcb32757491aca88",
                unpack="train2014/*.jpg",
                pictures=True,
            ),
            CatalogueFile(
                "val2014.zip",
                f"{COCO}/val2014.zip",
                6_645_013_297,
                exact=True,
                checksum="md5:a3d79f5ed8d289b7a7554ce06a5782b3",
                unpack="val2014/*.jpg",
                pictures=True,
            ),
        ),
        folders=("train2014", "val2014"),
    ),
    "flickr8k": DataSet(
        title="Flickr8k in Karpathy's split: 6,000 pictures to train on, 1,000 each to validate and test",
        licence="for research and teaching that earns no money; pictures under the terms of Flickr, each its owner's",
        page="https://hockenmaier.cs.illinois.edu/8k-pictures.html",
        files=(CatalogueFile("caption_datasets.zip", KARPATHY, 37 * MB, unpack="dataset_flickr8k.json"),),
        request="https://forms.illinois.edu/sec/1713398",
        folders=("Flicker8k_Dataset",),
    ),
    "flickr30k": DataSet(
        title="Flickr30k in Karpathy's split: 29,000 pictures to train on, 1,014 to validate, 1,000 to test",
        licence="for research and teaching that earns no money; pictures under the terms of Flickr, each its owner's",
        page="https://shannon.cs.illinois.edu/DenotationGraph/",
        files=(CatalogueFile("caption_datasets.zip", KARPATHY, 37 * MB, unpack="dataset_flickr30k.json"),),
        request="https://forms.illinois.edu/sec/229675",
        folders=("flickr30k-images",),
    ),
    "cc3m": DataSet(
        title="Conceptual Captions: 3.3 million pictures to train on, 15,840 to validate, as far as their addresses still answer",
        licence="captions free for any purpose, Google LLC to be named as the source; pictures each its owner's",
        page="https://ai.google.com/research/ConceptualCaptions/download",
        files=(
            CatalogueFile(
                "GCC-training.tsv",
                "https://storage.googleapis.com/gcc-data/Train/GCC-training.tsv",
                500 * MB,
                saved_as="train.tsv",
            ),
            CatalogueFile(
                "GCC-1.1.0-Validation.tsv",
                "https://storage.googleapis.com/gcc-data/Validation/GCC-1.1.0-Validation.tsv",
                3 * MB,
                saved_as="validation.tsv",
            ),
        ),
        lists=(
            PictureList("validation.tsv", "tsv", 15_840, 2 * GB, own_hosts=True),
            PictureList("train.tsv", "tsv", 3_318_333, 430 * GB, own_hosts=True),
        ),
    ),
    "nocaps": DataSet(
        title="nocaps validation: 4,500 pictures of Open Images, ten captions each, of things that COCO does not have",
        licence="captions and pictures CC BY 2.0",
        page="https://nocaps.org",
        files=(
            CatalogueFile(
                "nocaps_val_4500_captions.json",
                "https://nocaps.s3.amazonaws.com/nocaps_val_4500_captions.json",
                5 * MB,
            ),
        ),
        lists=(PictureList("nocaps_val_4500_captions.json", "coco", 4_500, 1_500 * MB, own_hosts=False),),
    ),
}
"""Name on the command line → the data set."""
