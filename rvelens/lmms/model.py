"""lmms-eval's requests answered by a hooked model under a method."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from itertools import groupby
from typing import Any, NoReturn

import torch
from lmms_eval.api.instance import Instance
from lmms_eval.api.model import lmms
from loguru import logger
from PIL import Image
from tqdm import tqdm

from rvelens.benchmarks import Item
from rvelens.evaluate import Decoding
from rvelens.evaluate.answering import answer_items, backing_off
from rvelens.interventions.methods import make_method
from rvelens.interventions.profiles import find_profile
from rvelens.lmms.arguments import parse
from rvelens.model.loading import load_model

# Under this key of a picture's `info` a task of ours keeps its name, from which VCD's noise follows.
NAME = "rvelens_name"
# What most models in lmms-eval generate at most where the task does not say.
LONG = 1024
# Options that are honoured here, or mean nothing where decoding is greedy.
_USED_KEYS = {"max_new_tokens", "until", "do_sample", "temperature", "top_p", "top_k", "num_beams"}


class RvelensModel(lmms):
    """A model under one method; see `rvelens.lmms.arguments.Arguments` for what it is made from.

    Requests are questions about one image each, decoded greedily.
    """

    is_simple = True

    def __init__(self, **keywords: Any) -> None:
        super().__init__()
        arguments = parse(keywords)
        self.arguments = arguments
        self.model = load_model(
            arguments.pretrained,
            family=arguments.family,
            dtype=arguments.dtype,
            device_map=arguments.device_map,
        )
        needs_profile = arguments.profile is not None or arguments.method == "rve"
        self.method = make_method(
            arguments.method,
            self.model,
            find_profile(arguments.profile, arguments.pretrained) if needs_profile else None,
            **arguments.parameters,
        )

    @property
    def device(self) -> torch.device:
        """Where lmms-eval gathers counts from several processes."""
        return self.model.device

    def generate_until(self, requests: Sequence[Instance]) -> list[str]:
        """Greedy answers, cut before the first of the texts that end one.

        Consecutive questions about the same picture share its prefix where that is exact.

        Raises:
            ValueError: a request with another number of images than one, or that asks for sampling
                or beams; an image that cannot be read.
        """
        bar = tqdm(total=len(requests), desc="rvelens", disable=self.rank != 0)
        ignored = {name for request in requests for name in request.arguments[1]} - _USED_KEYS
        if ignored:
            logger.warning(f"rvelens does not know the options {sorted(ignored)}: left out")
        answers: list[str] = []
        for options, batch in self._batches(requests):
            decoding = Decoding(
                self.arguments.prompt,
                max_new_tokens=options["length"],
                seed=self.arguments.seed,
            )
            items = [self._item(n, request) for n, request in enumerate(batch)]
            ask = partial(answer_items, self.model, [self.method], decoding=decoding)
            rows, _ = backing_off(ask, items, len(items))
            replies = [reply for (reply,) in rows]
            failed = next((answer.error for answer in replies if answer.error is not None), None)
            if failed is not None:  # an empty answer in its place would be scored
                raise ValueError(failed)
            answers += [cut(answer.text or "", options["until"]) for answer in replies]
            bar.update(len(batch))
        bar.close()
        return answers

    def loglikelihood(self, requests: Sequence[Instance]) -> NoReturn:
        """Not there: raises NotImplementedError."""
        raise NotImplementedError(
            "log-likelihood of given choices under a method of rvelens: expected a task with "
            "output_type generate_until; use such a task, or the margin of yes from `rvelens "
            "eval`."
        )

    def generate_until_multi_round(self, requests: Sequence[Instance]) -> NoReturn:
        """Not there: raises NotImplementedError."""
        raise NotImplementedError(
            "several rounds of questions under a method of rvelens: expected a task with "
            "output_type generate_until; use such a task."
        )

    def _batches(
        self, requests: Sequence[Instance]
    ) -> Iterator[tuple[dict[str, Any], list[Instance]]]:
        """Consecutive requests with the same options, each with what those come to."""
        size = self.arguments.batch_size
        for options, group in groupby(requests, key=lambda request: greedy(request.arguments[1])):
            same = list(group)
            for start in range(0, len(same), size):
                yield options, same[start : start + size]

    def _item(self, n: int, request: Instance) -> Item:
        """A request as a question of a benchmark; equal pictures get equal keys."""
        text, _, to_visual, doc_id, task, split = request.arguments
        visuals = to_visual(self.task_dict[task][split][doc_id]) or []
        if len(visuals) != 1 or not isinstance(visuals[0], Image.Image):
            kinds = ", ".join(type(visual).__name__ for visual in visuals) or "nothing"
            raise ValueError(
                f"question {doc_id} of {task} shows {kinds}: expected one image; leave the task "
                "out."
            )
        (image,) = visuals
        key = str(image.info.get(NAME) or _digest(image))
        return Item(str(n), key, key, text, None, None, "", lambda: image)


def greedy(options: Mapping[str, Any]) -> dict[str, Any]:
    """A request's options as the length and the endings of an answer.

    Raises:
        ValueError: sampling or beams are asked for.
    """
    samples = options.get("do_sample")
    if samples is None:
        samples = float(options.get("temperature") or 0) > 0
    if samples or (options.get("num_beams") or 1) != 1:
        raise ValueError(
            f"generation options {dict(options)}: expected greedy decoding, under which methods "
            "are compared; pass --gen_kwargs do_sample=False,num_beams=1."
        )
    until = options.get("until") or []
    return {
        "length": int(options.get("max_new_tokens") or LONG),
        "until": [until] if isinstance(until, str) else list(until),
    }


def cut(text: str, until: Sequence[str]) -> str:
    """The text before the first place where one of the endings begins."""
    positions = [text.find(ending) for ending in until if ending and ending in text]
    return text[: min(positions, default=len(text))]


def _digest(image: Image.Image) -> str:
    pixels = hashlib.sha256(f"{image.mode} {image.size}".encode())
    pixels.update(image.tobytes())
    return pixels.hexdigest()
