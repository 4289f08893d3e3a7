"""Where hooks meet a Hugging Face model: attention modules get hook points, a run follows forwards."""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from typing import Any

import torch
import transformers
from torch import Tensor, nn
from torch.compiler import is_compiling

from rvelens.hooks.names import KEYED, layer_of
from rvelens.seam import look_up, marks
from rvelens.seam.arguments import Keywords, name_arguments
from rvelens.seam.attention import AttentionHooks
from rvelens.seam.blocks import SourceOrReason
from rvelens.seam.device import execution_device
from rvelens.seam.forward import Forward, Run, refuse_checkpointing
from rvelens.seam.generation import guard_generate
from rvelens.seam.hook_point import Point
from rvelens.seam.lens_attention import LensAttention
from rvelens.seam.places import locate_in_decoder
from rvelens.seam.self_check import Problem, find_problems
from rvelens.seam.stream import Stream, blocks_of, points_of_model
from rvelens.seam.taps import Idle, VisualEmbeds
from rvelens.seam.vision import Tower, find_tower
from rvelens.seam.watching import Stack, find_stack
from rvelens.tokens import carried
from rvelens.tokens.new_tokens import NewTokens

_ATTRIBUTE = "_rvelens_seam"


@dataclass(eq=False)
class Seam:
    """The hook points of a model's decoder and the run that they share.

    Attributes:
        run: the forward in progress.
        layers: attention hooks by layer of the decoder; layers without attention have none.
        n_layers: layers of the decoder.
        stream: hook points that are read at the decoder's modules.
        blocks: the hook points of each layer.
        tower: those of the vision tower, if its attention can be looked up.
        problems: why the hook points of a layer cannot be used, as the self-check finds; None before.
        checked: the attention implementation that the self-check saw.
        self_check: whether it runs, as the newest wrapper of the model wants it.
        handles: of the torch hooks that follow the model.
        modules: the attention modules by layer.
        passed: what `check_attention` found in order last: points, implementation and `self_check`.
    """

    run: Run
    layers: Mapping[int, AttentionHooks]
    n_layers: int
    stream: Stream
    blocks: nn.ModuleList
    tower: Tower | None = None
    problems: Mapping[int, Problem] | None = None
    checked: str | None = None
    self_check: bool = True
    handles: list[Any] = field(default_factory=list)
    modules: Mapping[int, nn.Module] = field(default_factory=dict)
    passed: Any = None

    def __reduce__(self) -> tuple[type[None], tuple[()]]:
        """The seam belongs to the model that was wrapped: copies and pickles hold None instead."""
        return type(None), ()

    def is_whole(self, decoder: nn.Module) -> bool:
        """Whether the decoder's attention modules are still those that carry the hook points."""
        return _attached(decoder) == list(self.layers.values())

    def device_of(self, layer: int) -> torch.device:
        """Where the attention of a layer computes."""
        return execution_device(self.modules[layer])

    def check_points(self, decoder: Any, names: Sequence[str]) -> None:
        """Refuse hook points that would not run as the model computes them.

        Raises:
            ValueError: one of them is of such a layer, as the self-check says.
        """
        for name in names:
            reason, key = self.reason(decoder, name), name.removeprefix("blocks.")
            if reason is not None and key in self.stream.points:
                self.stream.refuse(key, name)
            if reason is not None:
                raise ValueError(
                    f"{name} of {type(decoder).__name__} cannot be hooked exactly, since "
                    f"{reason}: expected softmax attention whose output reaches the logits; "
                    "hook another point or layer."
                )

    def check_attention(self, decoder: Any, names: tuple[str, ...]) -> None:
        """`check_points` for points of attention, once for forwards in which nothing has changed."""
        state = (names, str(decoder.config._attn_implementation), self.self_check)
        if self.run.is_changed or state != self.passed:
            self.check_points(decoder, names)
            self.passed = state

    def reason(self, decoder: Any, name: str) -> str | None:
        """Why a point cannot be hooked; None where it can, or in the vision tower."""
        key = name.removeprefix("blocks.")
        if name.startswith("vision."):
            return None  # whose first forward tells
        if key in self.stream.points:
            return self.stream.reason(key)
        problems = self.check_layers(decoder) if self.self_check else {}
        problem = problems.get(layer_of(name))
        rows = name.endswith(KEYED)
        if problem is None or (problem.rows_only and not rows):
            return None
        return problem.reason

    def check_layers(self, decoder: Any) -> Mapping[int, Problem]:
        """Problems of the layers, from one short forward at the first call."""
        name = str(decoder.config._attn_implementation)
        if self.problems is None or self.checked != name or self.run.is_changed:
            self.checked, self.run.is_changed = name, False
            self.problems = find_problems(decoder, attention_modules(decoder))
        return self.problems

    def points_in_use(self) -> list[tuple[int, Point]]:
        """The hook points with hooks on, and their layers."""
        return [
            (layer, point)
            for layer, hooks in self.layers.items()
            if hooks.on
            for point in hooks.points
            if point.in_use
        ]

    @property
    def in_use(self) -> bool:
        """Whether any hook of the decoder is on."""
        return bool(self.stream.on) or bool(self.points_in_use())

    def raise_if_missed(self, forward: Forward) -> None:
        """Name the hooked points that did not run in the forward that ends.

        Raises:
            RuntimeError: some did not.
        """
        if not (forward.hooked or self.run.hooking is threading.current_thread()):
            return  # hooks that another thread turned on meanwhile
        missed = [
            str(point.name) for layer, point in self.points_in_use() if layer not in forward.fired
        ] + self.stream.missed(forward)
        if missed and forward.hooked:
            raise RuntimeError(
                f"hooks on {', '.join(missed)} did not run: expected every hooked layer to run; wrap "
                "the model again after its layers were replaced or removed, or run prompts uncompiled."
            )
        if missed:
            raise RuntimeError(
                f"hooks on {', '.join(missed)} were turned on during a forward: expected hooks "
                "that are on before it begins; turn them on around the forward."
            )


def is_wrapped(hf_model: Any) -> bool:
    """Whether a model, or the decoder in it, carries hook points."""
    return any(_ATTRIBUTE in x.__dict__ for x in (hf_model, hf_model.get_decoder()))


def open_seam(hf_model: Any) -> Seam:
    """Give a model's attention modules hook points; a model wrapped twice shares one set of them.

    Raises:
        ValueError: the decoder does not look its attention up in transformers' table.
    """
    decoder: Any = hf_model.get_decoder()
    seam: Seam | None = hf_model.__dict__.get(_ATTRIBUTE)
    if seam is not None and seam.is_whole(decoder):
        return seam
    modules = attention_modules(decoder)
    if not modules:
        raise ValueError(
            f"no layer of {type(decoder).__name__} looks its attention function up in transformers' "
            "AttentionInterface: expected a decoder that does; this model cannot be hooked."
        )
    look_up.wrap_look_up()
    carried.wrap_caches()
    for earlier in (seam, decoder.__dict__.get(_ATTRIBUTE)):
        if (
            earlier is not None
        ):  # its hook points are gone, and one map must not be counted on twice
            for handle in earlier.handles:
                handle.remove()
    run = Run()
    n_layers, stack = _n_layers(decoder, modules), find_stack(decoder, modules)
    stream = Stream(run, type(decoder).__name__, partial(_places, decoder, stack, run), stack)
    layers = {layer: LensAttention(run, layer, stream) for layer in modules}
    points_of_model(stream)
    tower = find_tower(hf_model, decoder, _asks_for_attention)
    blocks = blocks_of(stream, n_layers, layers)
    seam = Seam(run, layers, n_layers, stream, blocks, tower, modules=modules)
    for layer, module in modules.items():
        look_up.attach(module, layers[layer])
    follow(hf_model, decoder, seam)
    hf_model.__dict__[_ATTRIBUTE] = decoder.__dict__[_ATTRIBUTE] = seam
    return seam


def _places(decoder: nn.Module, stack: Stack | None, run: Run) -> dict[str, SourceOrReason]:
    """Sources of a decoder's points."""
    sources = {} if stack is None else locate_in_decoder(stack, run)
    return {"hook_image_features": VisualEmbeds(decoder, run), **sources}


def attention_modules(decoder: nn.Module) -> dict[int, nn.Module]:
    """The decoder's attention modules by layer: those whose code asks for an attention function.

    Raises:
        ValueError: two of them in one layer, or one in another place than its number says.
    """
    modules: dict[int, nn.Module] = {}
    for path, module in decoder.named_modules():
        layer = getattr(module, "layer_idx", None)
        if layer is None or not _asks_for_attention(type(module)):
            continue
        place = next((int(part) for part in path.split(".") if part.isdigit()), int(layer))
        if place != int(layer):
            raise ValueError(
                f"layer {place} of {type(decoder).__name__} has layer_idx {layer}: expected layers "
                "in the order of their numbers; set layer_idx again in every layer after you move "
                "or remove layers."
            )
        if int(layer) in modules:
            raise ValueError(
                f"layer {layer} of {type(decoder).__name__} has two attention modules: expected "
                "one; this model cannot be hooked."
            )
        modules[int(layer)] = module
    return dict(sorted(modules.items()))


@cache
def _asks_for_attention(kind: type[nn.Module]) -> bool:
    """Whether a class's own methods, or those it inherits, use `get_interface` of the table."""
    for base in kind.__mro__:
        if base is nn.Module:
            return False
        for method in vars(base).values():
            code = getattr(inspect.unwrap(method) if callable(method) else None, "__code__", None)
            if code is not None and "get_interface" in code.co_names:
                return True
    return False


def _n_layers(decoder: Any, modules: Mapping[int, nn.Module]) -> int:
    """Layers of the decoder, those without attention included."""
    n_layers = int(getattr(decoder.config.get_text_config(decoder=True), "num_hidden_layers", 0))
    return max(n_layers, max(modules) + 1)


def _attached(decoder: nn.Module) -> list[Any]:
    return [look_up.hooks_of(module) for module in attention_modules(decoder).values()]


def follow(hf_model: Any, decoder: Any, seam: Seam) -> None:
    """Let a run follow every forward of a Hugging Face model, `generate`'s included."""
    run = seam.run
    guard_generate(hf_model, lambda: seam.in_use)
    marking = marks.watch_marks(hf_model, run)
    ids = None if marking else marks.visual_ids(hf_model.config)
    # Adapters that learn prompts give the model below other inputs than they get.
    wholes = {hf_model, getattr(hf_model, "get_base_model", lambda: hf_model)()}
    seam.handles = [
        *(m.register_forward_pre_hook(ForgetMarks(run)) for m in marking if m not in wholes),
        *(m.register_forward_pre_hook(Announce(run, ids), with_kwargs=True) for m in wholes),
        hf_model.register_forward_hook(Forget(run), with_kwargs=True, always_call=True),
        decoder.register_forward_pre_hook(Begin(seam), with_kwargs=True),
        decoder.register_forward_hook(_End(seam), with_kwargs=True, always_call=True),
    ]


class _Follower:
    """A torch hook on a wrapped model; its copies and pickles get one that does nothing.

    Decode steps behind a static cache are traced by torch.compile; what a prompt needs is left out of
    the graph, by functions that are made when a model is wrapped: making them loads much of torch.
    """

    @staticmethod
    def uncompiled(function: Callable[..., None]) -> Callable[..., None]:
        """The same function, at which a graph breaks off."""
        disable: Any = torch.compiler.disable
        return disable(function)

    def __reduce__(self) -> tuple[Any, tuple[()]]:
        return Idle, ()


class Announce(_Follower):
    """Before the model: notes its inputs, which the decoder gets as embeddings only."""

    def __init__(self, run: Run, ids: tuple[int, ...] | None) -> None:
        self.run, self.ids = run, ids
        self._note_outside = self.uncompiled(self._note)

    def __call__(self, module: nn.Module, args: tuple[Any, ...], kwargs: Keywords) -> None:
        """Note ids and mask of the coming forward."""
        if _is_left_out(self.run, kwargs.get("input_ids"), kwargs):
            return
        self._note_outside(module, args, kwargs)

    def _note(self, module: nn.Module, args: tuple[Any, ...], kwargs: Keywords) -> None:
        named = name_arguments(module, args, kwargs)
        visual = marks.has_visual_inputs(named)
        self.run.here.coming = NewTokens(
            named.get("input_ids"),
            named.get("attention_mask"),
            None,
            self._ids(named, visual),
            visual,
        )

    def _ids(self, named: Mapping[str, Any], visual: bool) -> tuple[int, ...] | None:
        """Ids of visual tokens, for models that do not mark them; none without visual inputs."""
        if self.ids is None:
            return None
        cache = named.get("past_key_values")
        fresh = cache is None or not int(cache.get_seq_length())
        return self.ids if visual or fresh else ()


class Forget(_Follower):
    """Behind the model, also when it failed: what was announced is of no other forward."""

    def __init__(self, run: Run) -> None:
        self.run = run

    def __call__(
        self, module: nn.Module, args: tuple[Any, ...], kwargs: Keywords, output: Any
    ) -> None:
        """Drop what the decoder did not ask for."""
        if not is_compiling():
            self.run.forget_coming()


class ForgetMarks(_Follower):
    """Before a module that marks visual tokens: marks from before its forward are of another one."""

    def __init__(self, run: Run) -> None:
        self.run = run

    def __call__(self, module: nn.Module, args: tuple[Any, ...]) -> None:
        """Drop what a call of the marking method by itself left."""
        if not is_compiling():
            self.run.here.coming.visual = None


class Begin(_Follower):
    """Before the decoder: the token map of the forward."""

    def __init__(self, seam: Seam) -> None:
        self.seam, self.run = seam, seam.run
        self._begin_outside = self.uncompiled(self._begin)

    def __call__(self, module: nn.Module, args: tuple[Any, ...], kwargs: Keywords) -> None:
        """Find the map, from what was announced or from the decoder's own inputs.

        Raises:
            NotImplementedError: hooks are on, and backward would run their layers again.
        """
        x = kwargs.get("inputs_embeds")
        x = kwargs.get("input_ids") if x is None else x
        if is_compiling() and _is_static_step(x, kwargs):
            self.run.advance(kwargs["past_key_values"])
            if self.seam.stream.on:  # a guard: torch's hooks on modules have none
                return
            return
        if self.run.is_idle(kwargs.get("past_key_values")):
            return
        self._begin_outside(module, args, kwargs)

    def _begin(self, module: nn.Module, args: tuple[Any, ...], kwargs: Keywords) -> None:
        kwargs = name_arguments(module, args, kwargs)
        ids, x = kwargs.get("input_ids"), kwargs.get("inputs_embeds")
        x = ids if x is None else x
        if not isinstance(x, Tensor):
            return
        coming = self.run.here.coming
        if coming.input_ids is None and ids is not None:
            coming.input_ids = ids  # a decoder by itself reads text
        if coming.attention_mask is None:
            coming.attention_mask = kwargs.get("attention_mask")
        names = tuple(str(point.name) for _, point in self.seam.points_in_use())
        hooked = bool(self.seam.stream.on or names)
        if hooked:
            refuse_checkpointing(module)
        # Not at every step: nobody exchanges modules during a generation.
        if hooked and x.shape[1] > 1:
            self.seam.stream.renew()
        self.seam.check_attention(module, names)
        self.run.in_step = False
        self.run.begin(x.shape[0], x.shape[1], kwargs.get("past_key_values"), hooked, module)


class _End(_Follower):
    """Behind the decoder, also when it failed: checks what hooks did, and leaves the forward."""

    def __init__(self, seam: Seam) -> None:
        self.seam = seam
        self._end_outside = self.uncompiled(self._end)

    def __call__(
        self, module: nn.Module, args: tuple[Any, ...], kwargs: Keywords, output: Any
    ) -> None:
        """Let the cache take the map along; raise what the hooks did wrong."""
        x = kwargs.get("inputs_embeds")
        x = kwargs.get("input_ids") if x is None else x
        if _is_left_out(self.seam.run, x, kwargs):
            return
        self._end_outside(module, args, kwargs, output)

    def _end(self, module: nn.Module, args: tuple[Any, ...], kwargs: Keywords, output: Any) -> None:
        run = self.seam.run
        forward = run.ending()
        if forward is None:
            return
        try:
            if output is None:  # it failed, and says so itself
                return
            run.end(_cache_of(name_arguments(module, args, kwargs), output))
            self.seam.raise_if_missed(forward)
            if run.is_check_due(forward.n_query):
                run.check()
        finally:
            run.leave()


def _is_left_out(run: Run, x: Any, kwargs: Mapping[str, Any]) -> bool:
    """Whether a compiled graph needs nothing of a follower: a decode step, or no hooks and no map."""
    if is_compiling() and _is_static_step(x, kwargs):
        return True
    return run.is_idle(kwargs.get("past_key_values"))


def _is_static_step(x: Any, kwargs: Mapping[str, Any]) -> bool:
    """Whether one token comes behind a static cache with a map: a step that can be compiled."""
    if not isinstance(x, Tensor) or x.shape[1] != 1:
        return False
    return carried.static_map(kwargs.get("past_key_values")) is not None


def _cache_of(kwargs: Mapping[str, Any], output: Any) -> Any:
    """The cache that a forward filled: the one it was given, or one that it made."""
    cache = kwargs.get("past_key_values")
    if cache is not None:
        return cache
    if isinstance(output, tuple):
        return next((x for x in output if isinstance(x, transformers.Cache)), None)
    return getattr(output, "past_key_values", None)
