"""From images and questions to one left-padded batch of model inputs."""

from __future__ import annotations

import difflib
import warnings
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from jaxtyping import Int, Shaped, UInt8
from PIL import Image, ImageFile, ImageOps
from torch import Tensor

from rvelens.families import Family
from rvelens.files.atomic import NotRegularError, check_regular
from rvelens.files.wording import counted, kind_of_value
from rvelens.model.chat_template import from_template
from rvelens.model.images import ImageLike, is_file, is_image, picture_in, picture_of
from rvelens.model.limits import UnaskableError, check_questions, check_size

Images = ImageLike | Sequence[ImageLike]


# Pillow opens more. Some of those run another program (EPS) or read other files.
IMAGE_FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "JPEG2000", "AVIF")


@cache
def image_formats() -> tuple[str, ...]:
    """The formats of `IMAGE_FORMATS` that this build of Pillow can read."""
    Image.init()
    return tuple(name for name in IMAGE_FORMATS if name in Image.OPEN)


def load_image(image: ImageLike, *, upright: bool = True) -> Image.Image:
    """Load an image in RGB from a path, an open file, a PIL image, an array or a tensor.

    Transparency is dropped, so a transparent pixel gets its hidden colour. Of an opened animation the
    current frame is taken, and of a file the first. 16-bit channels keep their upper byte. Modes I and
    F do not define a range, so it is taken from the values:

    | mode | levels | become |
    |---|---|---|
    | I;16 and its variants | 0 to 65535 | the upper byte |
    | I | within 0 to 255 | themselves |
    | I | else within 0 to 65535 | the upper byte |
    | F | within 0 to 1 | 255 times as much, rounded |
    | F | else within 0 to 255 | themselves, rounded |

    Args:
        image: a path, a PIL image, an open binary file, or an array or tensor as
            `rvelens.model.images.picture_of` takes it.
        upright: rotate it by its EXIF orientation. Boxes and masks of benchmarks refer to the unrotated
            pixels.

    Raises:
        ValueError: a missing or truncated file, a format not in `IMAGE_FORMATS`, or mode I or F with
            other values. UnaskableError, a ValueError, for something that is not a regular file, or
            outside the limits (`rvelens.model.limits`).
    """
    if not is_image(image):
        raise ValueError(
            f"an image is {kind_of_value(image)}: expected a path, a PIL image, an open file, an "
            "array or a tensor; pass one of them."
        )
    if isinstance(image, np.ndarray | Tensor):
        image = picture_of(image)
    # Other libraries (lmms-eval) tell Pillow to fill up torn images with grey.
    lenient, ImageFile.LOAD_TRUNCATED_IMAGES = ImageFile.LOAD_TRUNCATED_IMAGES, False
    try:
        if isinstance(image, Image.Image):
            check_size(image.size, "an image")
            decoded = _decoded(image, upright)
        else:
            if isinstance(image, str | Path):
                check_regular(image)
            with _opened(image) as opened:
                check_size(opened.size, _name_of(image))
                decoded = _decoded(opened, upright)
    except FileNotFoundError as error:
        raise UnaskableError(f"no image at {image}: expected a file; check the path.") from error
    except (UnaskableError, NotRegularError):
        raise
    except MemoryError as error:
        raise UnaskableError(
            f"{_name_of(image)} needs more memory than there is: expected a smaller image; scale it "
            "down."
        ) from error
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise UnaskableError(
            f"{_name_of(image)} cannot be read as an image ({error}): expected "
            f"{', '.join(IMAGE_FORMATS)}; convert or replace the file."
        ) from error
    finally:
        ImageFile.LOAD_TRUNCATED_IMAGES = lenient
    if isinstance(decoded, Image.Image):
        return decoded
    return Image.fromarray(_bytes_of_levels(decoded, _name_of(image))).convert("RGB")


def _name_of(image: Any) -> str:
    """What an error calls an image: the path of a file, or the name of an open one."""
    name = image if isinstance(image, str | Path) else getattr(image, "name", None)
    return str(name) if isinstance(name, str | Path) else "an image"


def _opened(path: Any) -> Image.Image:
    """The file's image, before its pixels are read; what is large is refused, so no warning of it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        path = picture_in(path) if is_file(path) else path
        return Image.open(path, formats=image_formats())


def _decoded(image: Image.Image, upright: bool) -> Image.Image | Shaped[np.ndarray, "height width"]:
    """In RGB; of modes I and F the levels, int32 or float32 [height width]."""
    if upright:
        image = ImageOps.exif_transpose(image)
    if image.mode in ("I", "F"):
        return np.array(image)
    if image.mode == "I;16N":  # Pillow converts it to black.
        image = Image.fromarray(np.asarray(image))
    if image.mode.startswith("I;16"):
        image = image.convert("I").point(lambda level: level / 256).convert("L")
    elif image.mode == "La":  # Pillow knows no way from it to RGB.
        image = image.convert("LA")
    elif image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")  # Straight to RGB, Pillow warns of what is dropped.
    return image.convert("RGB")


def _bytes_of_levels(
    levels: Shaped[np.ndarray, "height width"], name: str
) -> UInt8[np.ndarray, "height width"]:
    """The grey levels of mode I or F as bytes, by the range that they lie in.

    Raises:
        ValueError: they lie in none, or are not numbers.
    """
    whole = levels.dtype.kind == "i"
    low, high = (levels.min().item(), levels.max().item()) if levels.size else (0, 0)
    if low >= 0 and high <= 255:  # Not where a level is NaN.
        return np.rint(levels * 255 if not whole and high <= 1 else levels).astype(np.uint8)
    if whole and low >= 0 and high <= 65535:
        return (levels >> 8).astype(np.uint8)
    raise ValueError(
        f"{name} is of mode {'I' if whole else 'F'} with levels from {low} to {high}: expected all "
        f"within 0 to {'255 or 0 to 65535' if whole else '1 or 0 to 255'}; scale them to such a "
        "range, or give the image in RGB."
    )


def pair_up(images: Images, questions: str | Sequence[str]) -> tuple[list[ImageLike], list[str]]:
    """One image per question; a single image or a single question is repeated.

    Raises:
        ValueError: no question, an empty question, or two lists of different lengths.
    """
    for value, noun in ((images, "images"), (questions, "questions")):
        if not isinstance(value, Sequence) and not is_image(value):
            raise ValueError(
                f"{noun} are {kind_of_value(value)}: expected one or a list of them; pass "
                "one of these."
            )
    single = is_image(images)
    image_list: list[ImageLike] = [images] if single else list(images)  # type: ignore[list-item, arg-type]
    question_list = [questions] if isinstance(questions, str) else list(questions)
    if single:
        image_list = image_list * len(question_list)
    elif isinstance(questions, str):
        question_list = question_list * len(image_list)
    if len(image_list) != len(question_list) or not question_list:
        raise ValueError(
            f"{counted(len(image_list), 'image')} and "
            f"{counted(len(question_list), 'question')}: expected equal numbers, "
            "or a single image or question for all; pass as many of each."
        )
    for question in question_list:
        if not isinstance(question, str):
            raise ValueError(
                f"a question is {kind_of_value(question)}: expected a string; pass one."
            )
        if not question.strip():
            raise ValueError(
                f"a question is {question!r}: expected a sentence; pass a non-empty string."
            )
        if any("\ud800" <= letter <= "\udfff" for letter in question):  # bytes that were not UTF-8
            raise ValueError(f"a question is {question!r}: expected valid UTF-8; correct it.")
    return image_list, question_list


def render_prompt(family: Family, processor: Any, question: str, prompt: str) -> str:
    """The full prompt text of one question, with the model's image token.

    Raises:
        ValueError: an unknown preset, or a template without "{question}" or "{image}".
    """
    image_token = image_text(family, processor)
    if prompt == "chat" and getattr(processor, "chat_template", None):
        content = [{"type": "image"}, {"type": "text", "text": question}]
        messages = [{"role": "user", "content": content}]
        return from_template(processor, messages)
    check_template(prompt, {"chat": "", **family.prompts})
    template = family.prompts.get(prompt, prompt)
    return template.replace("{image}", image_token).replace("{question}", question)


def check_template(prompt: str, presets: Mapping[str, str]) -> None:
    """Raise ValueError for a prompt that is neither a preset nor a template with image and question."""
    if prompt in presets:
        return
    if "{question}" not in prompt:
        near = difflib.get_close_matches(prompt, presets, n=1, cutoff=0.0)[0]
        raise ValueError(
            f"prompt {prompt!r} is not a preset ({', '.join(presets)}) and has no '{{question}}': "
            "expected a preset of the model's family or a template with it; did you mean "
            f"{near!r}?"
        )
    if "{image}" not in prompt:
        raise ValueError(
            f"the prompt template {prompt!r} has no image slot: expected '{{image}}' where the "
            "image stands; add it."
        )


def image_text(family: Family, processor: Any) -> str:
    """The placeholder of the image in a prompt's text, before the processor expands it."""
    if family.image_text is not None:
        return family.image_text
    return str(getattr(processor, "image_token", None) or "<image>")


def text_around_image(
    family: Family, processor: Any, questions: Sequence[str], prompt: str
) -> list[tuple[Int[Tensor, " before"], Int[Tensor, " after"]]]:
    """Token ids of each prompt before and after its image; no image is needed.

    Raises:
        ValueError: no processor, an unknown prompt, or a text with no or several image tokens.
    """
    check_processor(processor)
    check_questions(questions, processor)
    texts = [render_prompt(family, processor, question, prompt) for question in questions]
    image_token = processor.tokenizer.convert_tokens_to_ids(image_text(family, processor))
    around = []
    for ids in processor.tokenizer(texts, **_once_only_bos(processor, texts))["input_ids"]:
        if ids.count(image_token) != 1:
            raise ValueError(
                f"{ids.count(image_token)} image tokens in a text of the prompt {prompt!r} of "
                f"{family.name}: expected one, where the image stands; use model.prepare, and write "
                "no image token into a question."
            )
        start = ids.index(image_token)
        around.append((torch.tensor(ids[:start]).long(), torch.tensor(ids[start + 1 :]).long()))
    return around


def check_processor(processor: Any) -> None:
    """Raise ValueError if there is no processor."""
    if processor is None:
        raise ValueError(
            "this model has no processor: expected one to turn images and questions into tensors; "
            "pass processor= to HookedLVLM.from_pretrained."
        )


def prepare(
    family: Family,
    processor: Any,
    images: Images,
    questions: str | Sequence[str],
    prompt: str = "chat",
) -> transformers.BatchFeature:
    """Images and questions as one left-padded batch.

    Args:
        family: the family whose prompt presets are used.
        processor: the model's Hugging Face processor.
        images: paths or PIL images, or one of them for all questions.
        questions: one question or several.
        prompt: "chat" (the processor's chat template), a preset of the family, or a template with
            "{image}" and "{question}".

    Returns:
        input_ids and attention_mask [batch key], pixel values, and other inputs of the model.

    Raises:
        ValueError: no processor, unequal counts, an unreadable image, an unknown prompt.
    """
    check_processor(processor)
    image_list, question_list = pair_up(images, questions)
    check_questions(question_list, processor)
    texts = [render_prompt(family, processor, question, prompt) for question in question_list]
    loaded = {id(image): load_image(image) for image in image_list}
    return batch_of(processor, texts, [[loaded[id(image)]] for image in image_list])


def batch_of(
    processor: Any, texts: list[str], images: list[list[Image.Image]]
) -> transformers.BatchFeature:
    """Whole prompts with their images as one left-padded batch, as `prepare` returns it.

    Args:
        processor: the model's Hugging Face processor.
        texts: whole prompts, with the model's image token in the place of each image.
        images: the images of each prompt, in order.

    Raises:
        ValueError: images for which the processor fails.
    """
    # One list of images a text: processors of several-image models tell by nesting whose is whose.
    try:
        batch = processor(
            images=images,
            text=texts,
            return_tensors="pt",
            padding=True,
            padding_side="left",
            **_once_only_bos(processor, texts),
        )
    except (ArithmeticError, LookupError) as error:  # of sizes that its authors did not think of
        raise UnaskableError(
            f"the model's processor fails on these images and questions ({error}): expected inputs "
            "that it accepts; resize the image."
        ) from error
    batch.pop("labels", None)  # PaliGemma's processor makes some, the model would compute a loss.
    return _padding_first(batch)


def _once_only_bos(processor: Any, texts: list[str]) -> dict[str, bool]:
    """No special tokens where a chat template wrote the beginning-of-sequence token already."""
    bos = getattr(getattr(processor, "tokenizer", None), "bos_token", None)
    return {"add_special_tokens": False} if bos and texts[0].startswith(bos) else {}


def _padding_first(batch: transformers.BatchFeature) -> transformers.BatchFeature:
    """Move padding to where it changes no sample's answer: to the left end.

    InstructBLIP's processor leaves it between image and text, which moves the text away from the
    image, and puts it before the Q-Former's text, whose positions are absolute, so to its right.
    """
    if "attention_mask" not in batch:
        return batch
    order = batch["attention_mask"].argsort(dim=1, stable=True)
    for name in ("input_ids", "attention_mask", "token_type_ids", "mm_token_type_ids"):
        if name in batch:
            batch[name] = batch[name].gather(1, order)
    if "qformer_attention_mask" in batch:
        order = batch["qformer_attention_mask"].argsort(dim=1, stable=True, descending=True)
        for name in ("qformer_input_ids", "qformer_attention_mask"):
            batch[name] = batch[name].gather(1, order)
    return batch
