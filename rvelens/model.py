"""HookedLVLM: a Hugging Face vision-language model with TransformerLens hook points."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
import transformers
from jaxtyping import Float, Int
from torch import Tensor, nn

from rvelens.attention import AttentionHooks
from rvelens.families import Family, family_of
from rvelens.generation import check_behind_cache, check_options
from rvelens.grid import ImageGrid
from rvelens.hook_root import HookRoot
from rvelens.hub import TINY, embedded
from rvelens.prompts import (
    ImageLike,
    Images,
    load_image,
    pair_up,
    prepare,
    text_around_image,
)
from rvelens.seam import open_seam
from rvelens.tokens import TokenMap


class Block(nn.Module):
    """`blocks.{layer}`: holds the hook points of a layer, no weights."""

    def __init__(self, attn: AttentionHooks) -> None:
        super().__init__()
        self.attn = attn


class HookedLVLM(HookRoot):
    """A vision-language model whose language model's attention can be seen and edited.

    Hook names, `hooks`, `run_with_hooks`, `run_with_cache`, `add_hook` and `reset_hooks` mean what
    they mean in TransformerLens; `rvelens.attention.AttentionHooks` lists the hook points.
    Without hooks, logits and generations are those of the model under `attn_implementation="sdpa"`.

    Attributes:
        hf_model: the wrapped Hugging Face model; its weights and its vision tower are untouched.
        processor: the model's processor; None if the model is only fed tensors.
        family: prompt, presets and patch grid of this kind of model.
        n_layers, n_heads: layers and query heads of the language model.
    """

    def __init__(
        self,
        hf_model: transformers.PreTrainedModel,
        processor: Any = None,
        family: Family | None = None,
        query_rows: str | None = None,
    ) -> None:
        super().__init__()
        self.family = family or family_of(hf_model.config)
        self.family.refuse_if_inexact(hf_model.config)
        self.processor = processor
        self._run, layers = open_seam(hf_model)
        if query_rows is not None:
            self.query_rows = query_rows
        self.blocks = nn.ModuleList(Block(hooks) for hooks in layers)
        # setup() names every module below it, so the Hugging Face model joins only afterwards.
        self.setup()
        self.hf_model = hf_model
        text_config = hf_model.config.get_text_config()
        self.n_layers = len(layers)
        self.n_heads = int(text_config.num_attention_heads)

    @classmethod
    def from_pretrained(
        cls,
        model: str | Path | transformers.PreTrainedModel,
        *,
        processor: Any = None,
        family: str | Family | None = None,
        query_rows: str | None = None,
        trust_remote_code: bool = False,
        **kwargs: Any,
    ) -> HookedLVLM:
        """Load a model by name or folder, or wrap one that is loaded already.

        Args:
            model: a hub name, a folder, "rvelens/tiny" (embedded in the package, no network), or a
                loaded (also quantised) Hugging Face model.
            processor: the model's processor, if it does not lie beside the weights.
            family: the family or its name (see `rvelens families`), where the configuration alone
                does not tell it (ShareGPT4V has a LLaVA configuration).
            query_rows: "last" (where nothing was said) or "all", see `query_rows`.
            trust_remote_code: run code that comes with the weights. Off unless you ask for it.
            **kwargs: for `from_pretrained` of transformers (`dtype`, `device_map`, `revision`, ...).

        Raises:
            ValueError: unknown family, or a model whose attention cannot be hooked exactly.
        """
        named = family_of(family) if isinstance(family, str) else family
        if not isinstance(model, str | Path | transformers.PreTrainedModel):
            raise ValueError(
                f"the model is a {type(model).__name__}: expected a name, a folder or a Hugging Face "
                "model; wrap it before you compile it or give it to another wrapper."
            )
        if isinstance(model, transformers.PreTrainedModel):
            if kwargs:
                raise ValueError(
                    f"{', '.join(kwargs)} given with a loaded model: expected no loading options; "
                    "pass them where the model is loaded."
                )
            return cls(model, processor, named, query_rows)
        name = str(embedded(model))
        hub = {
            k: kwargs[k]
            for k in ("revision", "cache_dir", "token", "local_files_only")
            if k in kwargs
        }
        options = {"use_safetensors": True, "attn_implementation": "sdpa", **kwargs}
        hf_model = transformers.AutoModelForImageTextToText.from_pretrained(
            name, trust_remote_code=trust_remote_code, **options
        ).eval()
        if processor is None:
            processor = transformers.AutoProcessor.from_pretrained(
                name, trust_remote_code=trust_remote_code, **hub
            )
        return cls(hf_model, processor, named, query_rows)

    @property
    def name(self) -> str:  # type: ignore[override]
        """The model's name or folder, "rvelens/tiny" for the embedded one."""
        path = str(self.hf_model.config.name_or_path)
        return "rvelens/tiny" if path == str(TINY) else path

    @property
    def device(self) -> torch.device:
        """Where inputs belong; the first device of a model spread over several."""
        return self.hf_model.device

    @property
    def query_rows(self) -> Literal["last", "all"]:
        """Rows of scores and pattern that hooks see.

        "last" is the row of the last real token alone, at O(head x key) memory; "all" is the whole
        [batch head query key] matrix, as TransformerLens gives it.
        """
        return self._run.query_rows

    @query_rows.setter
    def query_rows(self, rows: str) -> None:
        self._run.query_rows = rows  # type: ignore[assignment]  # Run checks it

    @property
    def context_level(self) -> int:
        """Open `hooks` contexts; shared by all wrappers of a model, as the hook points are."""
        return self._run.context_level

    @context_level.setter
    def context_level(self, level: int) -> None:
        if "_run" in self.__dict__:  # TransformerLens sets it before there is one
            self._run.context_level = level

    def __deepcopy__(self, memo: Any) -> HookedLVLM:
        raise TypeError(
            "a HookedLVLM cannot be copied, since its hooks belong to the model it wraps: expected "
            "one wrapper a model; copy the Hugging Face model before you wrap it."
        )

    @property
    def tokens(self) -> TokenMap | None:
        """The token map of the latest forward."""
        return self._run.tokens

    def forward(self, *args: Any, **kwargs: Any) -> Float[Tensor, "batch query vocab"]:
        """Logits of the model for the inputs that `prepare` made.

        Raises:
            ValueError: tokens that the given cache holds already are given again.
        """
        ids, mask, cache = (
            kwargs.get(n) for n in ("input_ids", "attention_mask", "past_key_values")
        )
        n_past = int(cache.get_seq_length()) if cache is not None else 0
        if n_past and ids is not None and mask is not None and mask.dim() == 2:
            check_behind_cache(n_past, ids.shape[1], mask.shape[1])
        return self.hf_model(*args, **kwargs).logits

    def prepare(
        self, images: Images, questions: str | Sequence[str], prompt: str = "chat"
    ) -> transformers.BatchFeature:
        """One left-padded batch on the model's device; see `rvelens.prompts.prepare`."""
        batch = prepare(self.family, self.processor, images, questions, prompt)
        return batch.to(self.device, self.hf_model.dtype)  # ids stay integers

    def text_around_image(
        self, questions: Sequence[str], prompt: str = "chat"
    ) -> list[tuple[Int[Tensor, " before"], Int[Tensor, " after"]]]:
        """Token ids of each prompt before and behind its image; see `prompts.text_around_image`."""
        return text_around_image(self.family, self.processor, questions, prompt)

    def pick_samples(self, cache: Any, samples: Int[Tensor, " picked"]) -> None:
        """Make a cache one of picked, repeated or reordered samples, in place, and keep its token map.

        The cache's own methods do the first half alone: hooks would then look at other samples' images.
        """
        tokens = self._run.map_of(cache)
        cache.batch_select_indices(samples)
        if tokens is not None:
            self._run.remember(cache, tokens.pick(samples))

    def token_map(self, inputs: transformers.BatchFeature | dict[str, Any]) -> TokenMap:
        """The token map of a prepared batch."""
        return TokenMap.from_inputs(
            inputs["input_ids"], self.image_token_id, inputs.get("attention_mask")
        )

    def image_grid(self, image: ImageLike) -> ImageGrid | None:
        """Where the tokens of this image lie in it; None for families without a patch grid."""
        loaded = load_image(image)
        n_tokens = self.token_map(self.prepare(loaded, "?")).n_image[0]
        return self.family.grid(self.hf_model.config, self.processor, loaded.size, n_tokens)

    @property
    def image_token_id(self) -> int:
        """The token that stands for one image token in `input_ids`."""
        return int(self.hf_model.config.image_token_id)

    @torch.no_grad()
    def generate(self, **inputs: Any) -> Int[Tensor, "batch key"] | transformers.utils.ModelOutput:
        """The model's own `generate`, under whatever hooks are on; arguments are transformers'.

        Returns:
            token ids, or transformers' report of them under `return_dict_in_generate=True`.

        Raises:
            ValueError: a way of decoding that runs several rows a step, with hooks on; or a cache that
                does not go with the prompt.
        """
        check_options(self.hf_model, inputs, hooked=bool(self.list_hooks()))
        # InstructBLIP's generate goes straight to its language model with embeddings.
        self._run.announce(self.image_token_id, inputs)
        try:
            return self.hf_model.generate(**inputs)  # type: ignore[operator]
        finally:
            self._run.forget_announced()

    def ask(
        self,
        images: Images,
        questions: str | Sequence[str],
        *,
        max_new_tokens: int = 16,
        prompt: str = "chat",
        batch_size: int = 8,
        **kwargs: Any,
    ) -> list[str]:
        """Answer questions greedily, each about its image; one image may serve all questions.

        Args:
            images: paths, PIL images, or one of them for all questions.
            questions: one question or several.
            max_new_tokens: tokens to generate at most.
            prompt: a preset ("chat", "llava_v1", ...) or a template with "{question}".
            batch_size: questions per forward.
            **kwargs: for `generate` (`do_sample`, `num_beams`, ...).

        Raises:
            ValueError: unequal counts, an unreadable image, or an unknown prompt preset.
        """
        if batch_size < 1:
            raise ValueError(f"batch_size={batch_size}: expected at least 1.")
        images, questions = pair_up(images, questions)
        options = {"do_sample": False, **kwargs, "max_new_tokens": max_new_tokens}
        answers: list[str] = []
        for start in range(0, len(questions), batch_size):
            chunk = slice(start, start + batch_size)
            inputs = self.prepare(images[chunk], questions[chunk], prompt)
            output = self.generate(**inputs, **options)
            ids = output if isinstance(output, Tensor) else output["sequences"]
            answers += self.decode(ids, inputs["input_ids"])
        return answers

    def decode(
        self, output: Int[Tensor, "rows key"], prompt_ids: Int[Tensor, "batch prompt"]
    ) -> list[str]:
        """Text of the generated tokens, without the prompt that some models repeat before them."""
        n = prompt_ids.shape[1]
        times = output.shape[0] // prompt_ids.shape[0]
        repeats_prompt = output.shape[1] >= n and torch.equal(
            output[:, :n], prompt_ids.repeat_interleave(times, dim=0).to(output.device)
        )
        new = output[:, n:] if repeats_prompt else output
        return [text.strip() for text in self.processor.batch_decode(new, skip_special_tokens=True)]
