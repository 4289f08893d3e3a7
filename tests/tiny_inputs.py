"""What tiny models read: a word-level vocabulary, pictures, and processors without torchvision."""

from __future__ import annotations

import numpy as np
import transformers as tf
from PIL import Image
from tokenizers import Tokenizer, models, pre_tokenizers

WORDS = """
does a man woman child hold ride eat kick point at the surfboard bread ball horse in this image
is there direct contact between and on near big small red blue with hand foot head mouth
USER: ASSISTANT: user assistant model User: Assistant: system Question: Short answer: answer en
Please one word. ? yes no You are helpful assistant.
"""
SPECIAL = """
<pad> <s> </s> <unk> <image> <video> <|image_pad|> <|video_pad|> <|vision_start|> <|vision_end|>
<|im_start|> <|im_end|> <start_of_image> <end_of_image> <image_soft_token> <start_of_turn>
<end_of_turn> <img> </img> <IMG_CONTEXT> <fake_token_around_image> <global-img>
<end_of_utterance> <row_1_col_1> <row_1_col_2> <row_2_col_1> <row_2_col_2>
"""
SPECIAL_IDS = list(range(len(SPECIAL.split())))
VOCAB = {word: n for n, word in enumerate(dict.fromkeys((SPECIAL + WORDS).split()))}
N_VOCAB = len(VOCAB) + 8
# 8 query heads share 4 key/value heads in every decoder.
TEXT = {
    "vocab_size": N_VOCAB,
    "hidden_size": 64,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "head_dim": 8,
    "max_position_embeddings": 512,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
VISION = {
    "hidden_size": 32,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "patch_size": 8,
}


def image(width: int, height: int, seed: int = 0) -> Image.Image:
    """A random picture with structure at the scale of a patch."""
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 256, (5, 5, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)


IMAGES = [image(48, 22, 1), image(30, 52, 2), image(40, 40, 3)]
QUESTIONS = [
    "does a man hold a surfboard in this image ?",
    "is there direct contact between the big red ball and the small blue horse in this image ?",
    "does a child kick a ball ?",
]


def tokenizer(**names: str) -> tf.PreTrainedTokenizerFast:
    """A word-level tokenizer; `names` become attributes such as `image_token`."""
    words = Tokenizer(models.WordLevel(dict(VOCAB), unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tok = tf.PreTrainedTokenizerFast(
        tokenizer_object=words,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        extra_special_tokens=names or None,
    )
    tok.add_special_tokens({"additional_special_tokens": SPECIAL.split()[4:]}, False)
    return tok


def without_video(processor_class: type) -> type:
    """The processor class without its video processor, which exists only with torchvision."""

    class ImagesOnly(processor_class):
        def check_argument_for_proper_class(self, argument_name, argument):
            if argument is not None:
                super().check_argument_for_proper_class(argument_name, argument)

    ImagesOnly.__name__ = processor_class.__name__
    return ImagesOnly
