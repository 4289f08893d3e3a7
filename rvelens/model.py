"""HookedLVLM: a Hugging Face vision-language model with TransformerLens hook points."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformer_lens import HookedRootModule
from transformers import AutoModelForImageTextToText, AutoProcessor, BatchFeature, PreTrainedModel
from transformers.utils import ModelOutput

from rvelens import attention
from rvelens.attention import AttentionHooks
from rvelens.families import Family, family_of
from rvelens.grid import ImageGrid
from rvelens.prompts import ImageLike, Images, load_image, pair_up, prepare
from rvelens.run import Run, follow
from rvelens.tokens import TokenMap

# Options of generate under which a step has more rows than the one that hooks see.
_SEVERAL_ROWS = ("assistant_model", "prompt_lookup_num_tokens", "prefill_chunk_size")
TINY = Path(__file__).parent / "assets" / "tiny"


class Block(nn.Module):
    """`blocks.{layer}`: holds the hook points of a layer, no weights."""

    def __init__(self, attn: AttentionHooks) -> None:
        super().__init__()
        self.attn = attn


class HookedLVLM(HookedRootModule):
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
        hf_model: PreTrainedModel,
        processor: Any = None,
        family: Family | None = None,
        query_rows: str | None = None,
    ) -> None:
        super().__init__()
        self.family = family or family_of(hf_model.config)
        self.family.refuse_if_inexact(hf_model.config)
        self.processor = processor
        self._run, layers = _open_seam(hf_model)
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
        model: str | Path | PreTrainedModel,
        *,
        processor: Any = None,
        family: str | None = None,
        query_rows: str | None = None,
        trust_remote_code: bool = False,
        **kwargs: Any,
    ) -> HookedLVLM:
        """Load a model by name or folder, or wrap one that is loaded already.

        Args:
            model: a hub name, a folder, "rvelens/tiny" (embedded in the package, no network), or a
                loaded (also quantised) Hugging Face model.
            processor: the model's processor, if it does not lie beside the weights.
            family: name of the family (see `rvelens families`), where the configuration alone does
                not tell it (ShareGPT4V has a LLaVA configuration).
            query_rows: "last" (where nothing was said) or "all", see `query_rows`.
            trust_remote_code: run code that comes with the weights. Off unless you ask for it.
            **kwargs: for `from_pretrained` of transformers (`dtype`, `device_map`, `revision`, ...).

        Raises:
            ValueError: unknown family, or a model whose attention cannot be hooked exactly.
        """
        named = family_of(family) if family else None
        if isinstance(model, PreTrainedModel):
            if kwargs:
                raise ValueError(
                    f"{', '.join(kwargs)} given with a loaded model: expected no loading options; "
                    "pass them where the model is loaded."
                )
            return cls(model, processor, named, query_rows)
        name = str(TINY) if str(model) == "rvelens/tiny" else str(model)
        hub = {
            k: kwargs[k]
            for k in ("revision", "cache_dir", "token", "local_files_only")
            if k in kwargs
        }
        options = {"use_safetensors": True, "attn_implementation": "sdpa", **kwargs}
        hf_model = AutoModelForImageTextToText.from_pretrained(
            name, trust_remote_code=trust_remote_code, **options
        ).eval()
        if processor is None:
            processor = AutoProcessor.from_pretrained(
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
        """Logits of the model for the inputs that `prepare` made."""
        return self.hf_model(*args, **kwargs).logits

    def prepare(
        self, images: Images, questions: str | Sequence[str], prompt: str = "chat"
    ) -> BatchFeature:
        """One left-padded batch on the model's device; see `rvelens.prompts.prepare`."""
        batch = prepare(self.family, self.processor, images, questions, prompt)
        return batch.to(self.device, self.hf_model.dtype)  # ids stay integers

    def token_map(self, inputs: BatchFeature | dict[str, Any]) -> TokenMap:
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
    def generate(self, **inputs: Any) -> Int[Tensor, "batch key"] | ModelOutput:
        """The model's own `generate`, under whatever hooks are on; arguments are transformers'.

        Returns:
            token ids, or transformers' report of them under `return_dict_in_generate=True`.

        Raises:
            ValueError: a way of decoding that runs several rows a step, with hooks on.
        """
        configs = (inputs.get("generation_config"), self.hf_model.generation_config)
        asked = [inputs, *(vars(config) for config in configs if config is not None)]
        several = [n for n in _SEVERAL_ROWS if any(x.get(n) is not None for x in asked)]
        if several and self.list_hooks():
            raise ValueError(
                f"{several[0]} runs several rows at a step and hooks see the last one only: expected "
                "one token a step; leave it out, or take the hooks off."
            )
        if inputs.get("input_ids") is not None:
            # InstructBLIP's generate goes straight to its language model with embeddings.
            self._run.announce(self.image_token_id, inputs)
        return self.hf_model.generate(**inputs)  # type: ignore[operator]

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

    # -- hooks: TransformerLens' own, with mistakes answered --------------------------------------

    def hooks(  # Any: what TransformerLens' own annotation names is private to contextlib
        self,
        fwd_hooks: Sequence[tuple[str | Callable[[str], bool], Callable[..., Any]]] = (),
        bwd_hooks: Sequence[tuple[str | Callable[[str], bool], Callable[..., Any]]] = (),
        reset_hooks_end: bool = True,
        clear_contexts: bool = False,
    ) -> Any:
        """As in TransformerLens: hooks that are on inside a `with`, and gone after it.

        Raises:
            ValueError: an unknown hook name, or hooks made for a model of another shape.
        """
        return super().hooks(list(fwd_hooks), list(bwd_hooks), reset_hooks_end, clear_contexts)

    def _enable_hook(
        self, name: str | Callable[[str], bool], hook: Callable[..., Any], dir: Any
    ) -> None:
        self._check_hook(name, hook)
        super()._enable_hook(name, hook, dir)

    def add_hook(
        self, name: str | Callable[[str], bool], hook: Callable[..., Any], *args: Any, **kwargs: Any
    ) -> None:
        """As in TransformerLens; raises ValueError on an unknown name."""
        self._check_hook(name, hook)
        super().add_hook(name, hook, *args, **kwargs)

    def _check_hook(self, name: str | Callable[[str], bool], hook: Callable[..., Any]) -> None:
        if isinstance(name, str) and name not in self.hook_dict:
            raise ValueError(self._unknown(name))
        if not isinstance(name, str) and not any(map(name, self.hook_dict)):
            raise ValueError(
                f"the names filter of {hook!r} matches none of the {len(self.hook_dict)} hook points: "
                f"expected names such as {next(iter(self.hook_dict))!r}."
            )
        check = getattr(hook, "check", None)
        if check is not None:
            check(self.n_layers, self.n_heads)

    def _unknown(self, name: str) -> str:
        near = difflib.get_close_matches(name, self.hook_dict, n=1, cutoff=0.0)
        return (
            f"unknown hook name {name!r}: this model has layers 0 to {self.n_layers - 1}; "
            f"did you mean {near[0]!r}?"
        )

    def get_caching_hooks(self, names_filter: Any = None, *args: Any, **kwargs: Any) -> Any:
        """As in TransformerLens; raises ValueError where the filter names nothing."""
        names = [names_filter] if isinstance(names_filter, str) else names_filter
        for name in names if isinstance(names, list | tuple | set) else ():
            if name not in self.hook_dict:
                raise ValueError(self._unknown(name))
        if callable(names_filter) and not any(map(names_filter, self.hook_dict)):
            raise ValueError(
                f"names_filter matches none of the {len(self.hook_dict)} hook points: expected names "
                f"such as {next(iter(self.hook_dict))!r}."
            )
        names_filter = list(names) if isinstance(names, tuple | set) else names_filter
        return super().get_caching_hooks(names_filter, *args, **kwargs)


_SEAMS: WeakKeyDictionary[nn.Module, tuple[Run, list[AttentionHooks]]] = WeakKeyDictionary()


def _open_seam(hf_model: PreTrainedModel) -> tuple[Run, list[AttentionHooks]]:
    """Switch the text tower to rvelens' attention; a model wrapped twice shares one set of hooks."""
    if hf_model in _SEAMS:
        # It may have been switched to another implementation since.
        hf_model.set_attn_implementation({"text_config": attention.IMPLEMENTATION})
        return _SEAMS[hf_model]
    attention.register()
    decoder = hf_model.get_decoder()
    modules = [m for m in decoder.modules() if hasattr(m, "layer_idx") and hasattr(m, "o_proj")]
    modules.sort(key=lambda m: int(m.layer_idx))  # type: ignore[arg-type]
    hf_model.set_attn_implementation({"text_config": attention.IMPLEMENTATION})
    if not modules or decoder.config._attn_implementation != attention.IMPLEMENTATION:
        raise ValueError(
            f"{type(hf_model).__name__} does not call its attention through transformers' "
            "AttentionInterface: expected a decoder-only model that does; it cannot be hooked."
        )
    run = Run()
    layers = [AttentionHooks(run) for _ in modules]
    for module, hooks in zip(modules, layers, strict=True):
        attention.listen(module, hooks)
    follow(hf_model, decoder, run)
    _SEAMS[hf_model] = (run, layers)
    return run, layers
