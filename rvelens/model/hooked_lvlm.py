"""HookedLVLM: a Hugging Face vision-language model with TransformerLens hook points."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, Literal

import torch
import transformers
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.compiler import is_compiling

from rvelens.families import Family, family_of
from rvelens.files.arguments import refuse_wrong_types
from rvelens.files.wording import kind_of_value
from rvelens.heads.hub import TINY, check_name, embedded_folder
from rvelens.model.hook_root import Hooks
from rvelens.model.lens_model import LensModel
from rvelens.model.limits import check_length
from rvelens.model.prompts import ImageLike, Images, load_image, pair_up, prepare, text_around_image
from rvelens.model.trace import Trace
from rvelens.seam.arguments import (
    Keywords,
    ModelInputs,
    check_arguments,
    known_arguments,
    name_arguments,
)
from rvelens.seam.device import execution_device
from rvelens.seam.generation import check_behind_cache, check_prompt
from rvelens.seam.marks import has_visual_inputs, visual_ids
from rvelens.seam.returns import LogitsAndLoss, StoppedError, check_return, loss_of, stopping
from rvelens.seam.seam import open_seam
from rvelens.seam.stream import FinalNorm
from rvelens.tokens.carried import carry_map, map_behind
from rvelens.tokens.grid import ImageGrid, VideoGrid
from rvelens.tokens.token_map import TokenMap


class HookedLVLM(LensModel):
    """A vision-language model whose residual stream and attention hooks can read and edit.

    Hook names, `hooks`, `run_with_hooks`, `run_with_cache`, `add_hook` and `reset_hooks` work as in
    TransformerLens; `rvelens.seam.points` lists the hook points. The model keeps the attention
    implementation that it was loaded with. Hooks on scores and pattern need "sdpa" or "eager". Without
    hooks, logits and generations equal those of the model bit by bit.

    Attributes:
        hf_model: the wrapped Hugging Face model; its weights and its vision tower are not changed.
        processor: the model's processor; None if the model is only fed tensors.
        family: prompt, presets and patch grid of this kind of model.
        n_layers, n_heads: layers and query heads of the language model.
        attention_layers: the layers that have attention, and so its hook points; all layers, except in
            hybrid models.
    """

    @refuse_wrong_types
    def __init__(
        self,
        hf_model: Any,  # a PreTrainedModel, or one with PEFT adapters, which is no subclass
        processor: Any = None,
        family: Family | None = None,
        query_rows: str | None = None,
        self_check: bool = True,
    ) -> None:
        super().__init__()
        check_has_logits(hf_model)
        self.family = family or family_of(hf_model.config)
        self.family.refuse_if_inexact(hf_model.config)
        self.processor = processor
        self._seam = open_seam(hf_model)
        self._run = self._seam.run
        self._seam.self_check = self_check
        self._arguments = known_arguments(hf_model)
        if query_rows is not None:
            self.query_rows = query_rows
        self.n_layers = self._seam.n_layers
        self.n_heads = int(hf_model.config.get_text_config(decoder=True).num_attention_heads)
        self.attention_layers = tuple(self._seam.layers)
        points = self._seam.stream.points
        self.hook_image_features, self.hook_embed = (
            points[name] for name in ("hook_image_features", "hook_embed")
        )
        self.blocks = self._seam.blocks
        self.ln_final = FinalNorm(points["ln_final.hook_scale"], self._seam.stream)
        if self._seam.tower is not None:
            self.vision = self._seam.tower.vision
        for module in self.modules():
            module.training = hf_model.training
        # setup() names every module below it, so the Hugging Face model joins only afterwards.
        self.setup()
        self.hf_model = hf_model

    @classmethod
    @refuse_wrong_types
    def from_pretrained(
        cls,
        model: str | Path | nn.Module,
        *,
        processor: Any = None,
        family: str | Family | None = None,
        query_rows: str | None = None,
        self_check: bool = True,
        trust_remote_code: bool = False,
        **kwargs: Any,
    ) -> HookedLVLM:
        """Load a model by name or folder, or wrap a loaded model.

        Args:
            model: a hub name, a folder, "rvelens/tiny" (embedded in the package, no network), or a
                loaded Hugging Face model, also quantised or with PEFT adapters.
            processor: the model's processor, if it is not in the folder of the weights.
            family: the family or its name (see `rvelens families`), if the configuration does not
                identify it (ShareGPT4V has a LLaVA configuration).
            query_rows: "last" (the default) or "all", see `query_rows`.
            self_check: before the first hook, run one short forward to check that every layer can be
                hooked exactly; see `rvelens.seam.self_check`.
            trust_remote_code: run code that comes with the weights. Off by default.
            **kwargs: for `from_pretrained` of transformers (`dtype`, `device_map`, `revision`, ...).

        Raises:
            ValueError: unknown family, or a model whose attention cannot be hooked exactly.
        """
        named = family_of(family) if isinstance(family, str) else family
        if not isinstance(model, str | Path):
            check_loaded(model, kwargs)
            return cls(model, processor, named, query_rows, self_check)
        check_name(model)
        hf_model, processor = parts_of_checkpoint(
            model, processor, trust_remote_code=trust_remote_code, **kwargs
        )
        return cls(hf_model, processor, named, query_rows, self_check)

    @property
    def name(self) -> str:  # type: ignore[override]
        """The model's name or folder, "rvelens/tiny" for the embedded one."""
        path = str(self.hf_model.config.name_or_path)
        return "rvelens/tiny" if path == str(TINY) else path

    @property
    def device(self) -> torch.device:
        """The device for inputs; the first one if the model is on several or offloaded."""
        return execution_device(self.hf_model)

    @property
    def query_rows(self) -> Literal["last", "all"]:
        """Rows of scores and pattern that hooks see.

        "last" is only the row of the last real token, with O(head x key) memory. "all" is the whole
        [batch head query key] matrix, as in TransformerLens.
        """
        return self._run.query_rows

    @query_rows.setter
    def query_rows(self, rows: str) -> None:
        self._run.query_rows = rows  # type: ignore[assignment]  # Run checks it

    @property
    def enforce_mask(self) -> bool:
        """Apply the attention mask again after the hooks on scores.

        True by default. Set it to False for hooks that give a row access to masked keys.
        """
        return self._run.enforce_mask

    @enforce_mask.setter
    def enforce_mask(self, enforce: bool) -> None:
        self._run.enforce_mask = bool(enforce)

    @property
    def context_level(self) -> int:
        """The number of open `hooks` contexts; all wrappers of a model share it."""
        return self._run.context_level

    @context_level.setter
    def context_level(self, level: int) -> None:
        if "_run" in self.__dict__:  # TransformerLens sets it before there is one
            self._run.context_level = level

    def __deepcopy__(self, memo: Any) -> HookedLVLM:
        raise TypeError(
            "a HookedLVLM cannot be copied, since its hooks belong to the model it wraps: expected "
            "one wrapper for each model; copy the Hugging Face model before you wrap it."
        )

    def __reduce__(self) -> Any:
        raise TypeError(
            "a HookedLVLM cannot be pickled, since its hooks belong to the model it wraps: expected "
            "the Hugging Face model; save model.hf_model, and wrap it again after loading."
        )

    @property
    def tokens(self) -> TokenMap | None:
        """The token map of the latest forward."""
        return self._run.latest

    def forward(
        self,
        *args: Any,
        tokens: TokenMap | None = None,
        return_type: str | None = "logits",
        loss_per_token: bool = False,
        stop_at_layer: int | None = None,
        **kwargs: Any,
    ) -> Any:
        """Logits of the model [batch query vocab] for the inputs that `prepare` made.

        Args:
            args, kwargs: arguments of the Hugging Face model. One or several texts may replace the ids.
            return_type: "logits"; "loss", the mean cross-entropy of text tokens after real tokens;
                "both", a pair of them; or None, to run only the hooks.
            loss_per_token: return the loss of each next token, [batch query-1]; 0 if it is not text.
            stop_at_layer: stop before this layer, and return the residual stream [batch query d_model].
                Negative numbers count from the end; `n_layers` is before the final norm.
            tokens: the token map up to the end of this forward, tokens in the cache included. Needed if
                hooks use it and neither ids nor the model provide it, as with embeddings.

        Raises:
            TypeError: an argument that neither the model nor this method takes.
            ValueError: tokens that are already in the given cache, a map of another length, an unknown
                return type or layer, or a loss of tokens with unknown ids.
        """
        check_arguments(self._arguments, type(self.hf_model).__name__, kwargs)
        check_return(return_type, kwargs)
        args, kwargs = self._with_ids(args, self._with_defaults(kwargs))
        named = name_arguments(self.hf_model, args, kwargs)
        ids, mask, cache = (
            named.get(n) for n in ("input_ids", "attention_mask", "past_key_values")
        )
        # Inside a graph nothing waits for the length of a static cache, which is a tensor.
        n_past = 0 if cache is None or is_compiling() else int(cache.get_seq_length())
        prompt = named.get("inputs_embeds", ids)
        if tokens is not None and prompt is not None and tokens.batch != len(prompt):
            raise ValueError(
                f"a token map of {tokens.batch} samples for a forward of {len(prompt)}: expected "
                "one row for each sample; pass tokens=TokenMap.from_masks(image, real)."
            )
        if n_past and ids is not None and mask is not None and mask.dim() == 2:
            check_behind_cache(n_past, ids.shape[1], mask.shape[1])
        if stop_at_layer is not None:
            return self._stopped(stop_at_layer, args, kwargs, tokens)
        with nullcontext() if is_compiling() and tokens is None else self._following(tokens):
            output = self.hf_model(*args, **kwargs)
        # A tuple under return_dict=False, where a loss may come first.
        parts = output if isinstance(output, tuple) else (output.logits,)
        logits = next(x for x in parts if isinstance(x, Tensor) and x.dim() == 3)
        if return_type in ("logits", None):
            return logits if return_type else None
        loss = loss_of(logits, ids, self._predicted(logits), loss_per_token)
        return LogitsAndLoss(logits, loss) if return_type == "both" else loss

    def _with_ids(
        self, args: tuple[Any, ...], kwargs: Keywords
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The arguments with ids by name, and with ids and a mask in the place of texts."""
        if not args:
            return args, kwargs
        if isinstance(args[0], Tensor):
            # Some models take pixels first; ids alone are ids to all of them.
            is_ids = len(args) == 1 and not args[0].is_floating_point()
            return ((), {"input_ids": args[0], **kwargs}) if is_ids else (args, kwargs)
        texts = [args[0]] if isinstance(args[0], str) else list(args[0])
        batch = self.tokenizer(texts, return_tensors="pt", padding=True, padding_side="left")
        ids, mask = (batch[n].to(self.device) for n in ("input_ids", "attention_mask"))
        others = dict(list(name_arguments(self.hf_model, args, {}).items())[1:])
        return (), {**others, "input_ids": ids, "attention_mask": mask, **kwargs}

    def _predicted(
        self, logits: Float[Tensor, "batch query vocab"]
    ) -> Bool[Tensor, "batch query"] | None:
        """Which tokens are text behind a real token; None where their roles are unknown."""
        tokens, n = self.tokens, logits.shape[1]
        if tokens is None or tokens.n_known != tokens.n_keys or n > tokens.n_known:
            return None
        predicted = tokens.text[:, -n:].clone()
        predicted[:, 1:] &= tokens.real[:, -n:-1]
        return predicted

    def _stopped(
        self, layer: int, args: tuple[Any, ...], kwargs: Keywords, tokens: TokenMap | None
    ) -> Float[Tensor, "batch query d_model"]:
        stack = self._seam.stream.stack
        named = name_arguments(self.hf_model, args, kwargs)
        if stack is None or named.get("past_key_values") is not None:
            raise ValueError(
                f"stop_at_layer={layer} with a cache, or of a model whose layers are in no list: "
                "expected a forward without a cache; leave one of them out."
            )
        with self._following(tokens), stopping(stack.blocks, layer, self.hook_embed):
            try:
                self.hf_model(*args, **{**kwargs, "use_cache": False})
            except StoppedError as stopped:
                return stopped.residual
        raise RuntimeError(
            f"the forward did not reach layer {layer}: expected every layer to run; wrap the model "
            "again after its layers were replaced."
        )

    @contextmanager
    def _following(self, tokens: TokenMap | None) -> Iterator[None]:
        """Around calls of the model: a given map, and the check that hooks could run at all."""
        n_before = self._run.here.n_forwards
        with self._run.giving(tokens):
            yield
            unused = self._run.here.given
        compiled = self.tokens is not None and self.tokens.length is not None
        if self._run.here.n_forwards == n_before and not compiled and self.list_hooks():
            raise RuntimeError(
                f"the decoder of {type(self.hf_model).__name__} did not run, so no hook did: expected "
                "the decoder that was wrapped; wrap the model again after its parts were replaced."
            )
        if unused is not None:
            raise ValueError(
                f"a token map of {unused.n_keys} tokens for a shorter forward: expected a map of every "
                "token up to its end; pass tokens=TokenMap.from_masks(image, real)."
            )

    @refuse_wrong_types
    def prepare(
        self, images: Images, questions: str | Sequence[str], prompt: str = "chat"
    ) -> transformers.BatchFeature:
        """One left-padded batch on the model's device; see `rvelens.model.prompts.prepare`."""
        batch = prepare(self.family, self.processor, images, questions, prompt)
        check_length(self.hf_model.config, batch)
        return batch.to(self.device, self.hf_model.dtype)  # ids stay integers

    @refuse_wrong_types
    def text_around_image(
        self, questions: Sequence[str], prompt: str = "chat"
    ) -> list[tuple[Int[Tensor, " before"], Int[Tensor, " after"]]]:
        """Token ids of each prompt before and after its image; see `prompts.text_around_image`."""
        return text_around_image(self.family, self.processor, questions, prompt)

    @refuse_wrong_types
    def token_map(self, inputs: ModelInputs) -> TokenMap:
        """The token map of a prepared batch: image tokens and video frames by their ids."""
        return TokenMap.from_inputs(
            inputs["input_ids"], visual_ids(self.hf_model.config), inputs.get("attention_mask")
        )

    @refuse_wrong_types
    def image_grid(self, image: ImageLike) -> ImageGrid | None:
        """The patch grid of this image; None for families without one."""
        loaded = load_image(image)
        n_tokens = self.token_map(self.prepare(loaded, "?")).n_image[0]
        return self.family.grid(self.hf_model.config, self.processor, loaded.size, n_tokens)

    @refuse_wrong_types
    def video_grid(self, inputs: ModelInputs, video: int = 0) -> VideoGrid | None:
        """The patch grid of a video; None for families that do not read videos.

        Args:
            inputs: inputs of the model, as its processor returned them.
            video: the number of the video in the inputs.
        """
        return self.family.video_grid(self.hf_model.config, inputs, video)

    @property
    def image_token_id(self) -> int:
        """The id of an image token in `input_ids`."""
        return int(self.hf_model.config.image_token_id)

    @torch.no_grad()
    def generate(
        self, input: Any = None, *, tokens: TokenMap | None = None, **inputs: Any
    ) -> Int[Tensor, "batch key"] | transformers.utils.ModelOutput:
        """The model's own `generate`, with the active hooks; its arguments are those of transformers.

        Args:
            input: ids of the prompt [batch key], or its text.
            tokens: the token map of the prompt. Needed if hooks use it and neither ids nor the model
                provide it, as with embeddings.
            **inputs: for `generate` of transformers.

        Returns:
            token ids, or the output object of transformers with `return_dict_in_generate=True`.

        Raises:
            ValueError: decoding that runs several rows per step while hooks are active, or a cache that
                does not fit the prompt.
        """
        if input is not None:
            is_ids = isinstance(input, Tensor)
            inputs = (
                {**inputs, "input_ids": input} if is_ids else self._with_ids((input,), inputs)[1]
            )
        inputs = self._with_defaults(inputs)
        check_prompt(self.hf_model, inputs)
        prompt = inputs.get("input_ids", inputs.get("inputs_embeds"))
        if tokens is None:
            tokens = self._map_of_prompt(inputs)
        elif prompt is not None and tokens.n_keys != prompt.shape[1]:
            raise ValueError(
                f"a token map of {tokens.n_keys} tokens for a forward of {prompt.shape[1]}: expected "
                "every token of the prompt; pass tokens=TokenMap.from_masks(image, real)."
            )
        with self._following(tokens):
            return self.hf_model.generate(**inputs)  # type: ignore[operator]

    def _map_of_prompt(self, inputs: dict[str, Any]) -> TokenMap | None:
        """The map of the prompt of a generation; None where the forwards tell it.

        generate gets the ids of the whole prompt. They are needed where a model's own generate hands
        embeddings to its language model, and where a cache of unknown origin holds the beginning. They
        also tell that the last token of a prompt is not a generated one.
        """
        ids, cache = inputs.get("input_ids"), inputs.get("past_key_values")
        n_past = int(cache.get_seq_length()) if cache is not None else 0
        if ids is None:
            return None
        plain: Any = transformers.GenerationMixin.__dict__["generate"]
        own = getattr(type(self.hf_model), "generate", None) is not plain
        if not 0 < n_past < ids.shape[1]:
            return self.token_map(inputs) if own and not n_past else None
        whole = self.token_map(inputs)
        past = map_behind(cache, n_past, len(ids))
        if past is None:
            carry_map(cache, past := whole.crop(n_past))
        if n_past < ids.shape[1] - 1 and not own:
            return None
        image = whole.image[:, n_past:] & has_visual_inputs(inputs)
        new = TokenMap.from_masks(image, whole.real[:, n_past:])
        return past.append(new, whole.real[:, past.n_known : n_past])

    @refuse_wrong_types
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
        """Answer questions greedily, each about its image, or all about one image.

        Args:
            images: paths, PIL images, open binary files, arrays [height width channel] or tensors
                [channel height width] (`rvelens.model.images`), or a single one for all questions.
            questions: one question or several.
            max_new_tokens: tokens to generate at most.
            prompt: a preset ("chat", "llava_v1", ...) or a template with "{question}".
            batch_size: questions per forward.
            **kwargs: for `generate` (`do_sample`, `num_beams`, ...).

        Raises:
            ValueError: unequal counts, an unreadable image, or an unknown prompt preset.
        """
        if batch_size < 1:
            raise ValueError(f"batch_size={batch_size}: expected at least 1; pass a larger number.")
        images, questions = pair_up(images, questions)
        options = {"do_sample": False, **kwargs, "max_new_tokens": max_new_tokens}
        answers: list[str] = []
        for start in range(0, len(questions), batch_size):
            chunk = slice(start, start + batch_size)
            inputs = self.prepare(images[chunk], questions[chunk], prompt)
            check_length(self.hf_model.config, inputs, max_new_tokens)
            output = self.generate(**inputs, **options)
            ids = output if isinstance(output, Tensor) else output["sequences"]
            answers += self.decode(ids, inputs["input_ids"])
        return answers

    @refuse_wrong_types
    def chat(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        max_new_tokens: int = 64,
        stream: Callable[[str], object] | None = None,
        **kwargs: Any,
    ) -> str:
        """Answer a conversation of several turns and images greedily, with the active hooks.

        Args:
            messages: such as `{"role": "user", "content": ...}`; the last one is of the user. Content
                is a text, or a list of `{"type": "text", "text": ...}` and
                `{"type": "image", "image": ...}` with an image as `ask` takes it.
            max_new_tokens: tokens to generate at most.
            stream: called with each piece of the answer when it is generated.
            **kwargs: for `generate` (`do_sample`, ...).

        Raises:
            ValueError: messages of another form, no image, or a conversation that the family has no
                prompt for: several images, or several turns without a chat template.
        """
        # Here, since an import need not load streamers.
        from rvelens.model.chat import Pieces, prepare_chat

        batch = prepare_chat(self.family, self.processor, messages)
        check_length(self.hf_model.config, batch, max_new_tokens)
        inputs = batch.to(self.device, self.hf_model.dtype)
        options = {"do_sample": False, **kwargs, "max_new_tokens": max_new_tokens}
        if stream is not None:
            options["streamer"] = Pieces(self.tokenizer, stream)
        output = self.generate(**inputs, **options)
        ids = output if isinstance(output, Tensor) else output["sequences"]
        return self.decode(ids, inputs["input_ids"])[0]

    @refuse_wrong_types
    def trace(
        self,
        image: ImageLike,
        question: str,
        settings: Mapping[str, Hooks] | None = None,
        *,
        max_new_tokens: int = 32,
        prompt: str = "chat",
    ) -> Trace:
        """The greedy answer token by token: probabilities, and where every head looked for each token.

        Args:
            image: a path or PIL image.
            question: one question.
            settings: hooks by the name of each answer, such as `{"plain": [], "RVE": rve_hooks(...)}`.
                None for one answer with the active hooks.
            max_new_tokens: tokens to generate at most.
            prompt: a preset ("chat", "llava_v1", ...) or a template with "{question}".

        Returns:
            the answers with log-probabilities and attention [token layer head image]. Attention is that
            of the row that predicts the token, after the softmax and after the hooks. A notebook shows
            the trace as pictures. For hooks that need `query_rows="all"`, use
            `rvelens.evaluate.tracing.trace_methods`.

        Raises:
            ValueError: settings while hooks are active, no settings, or an error of `prepare`.
        """
        # Here, since an import need not load logits processors.
        from rvelens.model.tracing import trace

        return trace(self, image, question, settings, max_new_tokens=max_new_tokens, prompt=prompt)

    @refuse_wrong_types
    def decode(
        self, output: Int[Tensor, "rows key"], prompt_ids: Int[Tensor, "batch prompt"]
    ) -> list[str]:
        """Text of the generated tokens, without the prompt that some models repeat."""
        n = prompt_ids.shape[1]
        times = output.shape[0] // prompt_ids.shape[0]
        repeats_prompt = output.shape[1] >= n and torch.equal(
            output[:, :n], prompt_ids.repeat_interleave(times, dim=0).to(output.device)
        )
        new = output[:, n:] if repeats_prompt else output
        return [text.strip() for text in self.processor.batch_decode(new, skip_special_tokens=True)]


def parts_of_checkpoint(
    model: str | Path, processor: Any = None, *, trust_remote_code: bool = False, **kwargs: Any
) -> tuple[transformers.PreTrainedModel, Any]:
    """The unwrapped model of a name or folder, and its processor.

    Args:
        model: a hub name, a folder, or "rvelens/tiny".
        processor: a processor to use; None loads the one in the folder of the weights.
        trust_remote_code: run code that comes with the weights.
        **kwargs: for `from_pretrained` of transformers.
    """
    name = str(embedded_folder(model))
    hub = {
        k: kwargs[k] for k in ("revision", "cache_dir", "token", "local_files_only") if k in kwargs
    }
    options = {"use_safetensors": True, "attn_implementation": "sdpa", **kwargs}
    hf_model = transformers.AutoModelForImageTextToText.from_pretrained(
        name, trust_remote_code=trust_remote_code, **options
    ).eval()
    if processor is None:
        processor = transformers.AutoProcessor.from_pretrained(
            name, trust_remote_code=trust_remote_code, **hub
        )
    return hf_model, processor


def check_has_logits(hf_model: Any) -> None:
    """Raise ValueError for a part of a model that does not compute logits."""
    if not hasattr(hf_model, "generate"):
        raise ValueError(
            f"{kind_of_value(hf_model)} is wrapped, which makes no logits: expected the whole model, "
            "as AutoModelForImageTextToText loads it; wrap that."
        )


def check_loaded(model: Any, options: dict[str, Any]) -> None:
    """Raise ValueError if a loaded model cannot be wrapped, or loading options come with it."""
    wrapped = isinstance(model, transformers.PreTrainedModel) or hasattr(model, "get_base_model")
    if not (wrapped and isinstance(model, nn.Module)):
        raise ValueError(
            f"the model is {kind_of_value(model)}: expected a name, a folder or a Hugging Face "
            "model; wrap it before you compile it or give it to another wrapper."
        )
    if options:
        raise ValueError(
            f"{', '.join(options)} given with a loaded model: expected no loading options; "
            "pass them where the model is loaded."
        )
