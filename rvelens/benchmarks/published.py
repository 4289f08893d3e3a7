"""Where the files of each benchmark are published, and where to put them in the data folder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class PublishedFile:
    """An archive, a folder or a page with files of a benchmark.

    Attributes:
        files: a description of its content.
        address: the URL.
        place: the folder below the data folder to put or unpack it into.
    """

    files: str
    address: str
    place: str

    def __str__(self) -> str:
        return f"{self.files}: from {self.address} into DATA/{self.place}"


_AMBER = "https://github.com/junyangwang0410/AMBER/tree/master/data"
_GOOGLE = "https://drive.google.com"
# Addresses are those that the benchmarks' own pages give:
# https://github.com/AoiDragon/POPE, https://github.com/junyangwang0410/AMBER,
# https://github.com/mrwu-mac/R-Bench, https://github.com/niejiahao1998/MMRel.
_POPE = (
    PublishedFile(
        "coco_pope_*.json", "https://github.com/AoiDragon/POPE/tree/main/output/coco", "pope"
    ),
    PublishedFile(
        "COCO_val2014_*.jpg (6 GB)", "http://images.cocodataset.org/zips/val2014.zip", "val2014"
    ),
)
_RBENCH = (
    PublishedFile(
        "one archive with *_filterd.json, *_ids_*.json and instance_mask/",
        f"{_GOOGLE}/file/d/1sqO0MWBg_HXp5cIKb-nstjNEEk5crUWH/view",
        "rbench",
    ),
    PublishedFile(
        "one archive with the images",
        f"{_GOOGLE}/file/d/10JXRdzTRMylWQA160qdoYITGO10g6N8k/view",
        "rbench/images",
    ),
)
_MMREL = PublishedFile(
    "questions", f"{_GOOGLE}/drive/folders/1MQNeoOqKXloQHHEEVOFdBPd-xyvRuDR6", "mmrel/annotations"
)
_VG = PublishedFile(
    "images.zip and images2.zip of Visual Genome (15 GB)",
    "https://homes.cs.washington.edu/~ranjay/visualgenome/api.html",
    "mmrel/vg",
)
_DALLE = PublishedFile(
    "images of DALL-E",
    f"{_GOOGLE}/drive/folders/1h4Kwo6Mi1HHe-XDrqlIhmVCQH-AO7iHC",
    "mmrel/Dall-E_generated",
)
_AMBER_IMAGES = PublishedFile(
    "AMBER_*.jpg", f"{_GOOGLE}/file/d/1MaCHgtupcZUjf007anNl4_MV0o4DjXvl/view", "amber/image"
)
_SOURCES: Mapping[str, tuple[PublishedFile, ...]] = {
    "pope": _POPE,
    "amber-relation": (
        PublishedFile("query_discriminative-relation.json", f"{_AMBER}/query", "amber"),
        PublishedFile("annotations.json", _AMBER, "amber"),
        _AMBER_IMAGES,
    ),
    "amber-existence": (
        PublishedFile("query_discriminative-existence.json", f"{_AMBER}/query", "amber"),
        PublishedFile("annotations.json", _AMBER, "amber"),
        _AMBER_IMAGES,
    ),
    "rbench": _RBENCH,
    "mmrel-real": (_MMREL, _VG),
    "mmrel-dalle": (_MMREL, _DALLE),
    "mmrel-open": (_MMREL, _VG, _DALLE),
}


def sources(benchmark: str) -> tuple[PublishedFile, ...]:
    """Where the files of a benchmark are published; none for a drawn benchmark.

    Args:
        benchmark: one of `rvelens.benchmarks.BENCHMARKS`.
    """
    return next((files for name, files in _SOURCES.items() if benchmark.startswith(name)), ())
