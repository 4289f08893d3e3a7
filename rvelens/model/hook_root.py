"""TransformerLens' hooks, with arguments checked before anything is hooked."""

from __future__ import annotations

import difflib
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from reprlib import repr as brief
from typing import Any

from torch import Tensor
from transformer_lens import HookedRootModule

from rvelens.files.arguments import refuse_wrong_types
from rvelens.files.wording import counted
from rvelens.heads.layers import format_layers
from rvelens.hooks.names import KEYED, layer_of
from rvelens.seam.device import execution_device
from rvelens.seam.hook_point import name_of
from rvelens.seam.points import rows_of
from rvelens.seam.seam import Seam
from rvelens.seam.taps import TapPoint

# Hook points, or filters of their names, and the hook for each.
Hooks = Sequence[tuple[str | Callable[[str], bool], Callable[..., Any]]]


def is_hook_pair(entry: Any) -> bool:
    """Whether a value is a pair of a hook point, or a filter of names, and a function."""
    if not isinstance(entry, tuple | list) or len(entry) != 2:
        return False
    point, function = entry
    return (isinstance(point, str) or callable(point)) and callable(function)


def check_hook(entry: Any) -> tuple[Any, Callable[..., Any]]:
    """The hook point (or filter of names) and the function of one entry in a list of hooks.

    Raises:
        ValueError: the entry is something else.
    """
    if not is_hook_pair(entry):
        raise ValueError(
            f"hook {brief(entry)}: expected a pair of a hook point, or a filter of names, and a "
            "function; pass a list of such pairs."
        )
    point, function = entry
    return point, function


class HookRoot(HookedRootModule):
    """A `HookedRootModule` whose errors say what is wrong with a hook.

    Attributes:
        hf_model: the model whose attention is hooked.
        n_layers, n_heads: its shape, which hooks may check.
    """

    hf_model: Any
    cfg: Any
    n_layers: int
    n_heads: int
    attention_layers: tuple[int, ...]
    query_rows: Any
    _seam: Seam

    @refuse_wrong_types
    @contextmanager
    def hooks(
        self,
        fwd_hooks: Sequence[tuple[str | Callable[[str], bool], Callable[..., Any]]] = (),
        bwd_hooks: Sequence[tuple[str | Callable[[str], bool], Callable[..., Any]]] = (),
        reset_hooks_end: bool = True,
        clear_contexts: bool = False,
    ) -> Iterator[Any]:
        """As in TransformerLens: hooks that are active inside a `with` block, and removed after it.

        Raises:
            ValueError: an unknown hook name, or hooks made for a model of another shape. At the end of
                the block: NaN or infinity that hooks put into the latest generated tokens.
        """
        run = self._seam.run
        fwd_hooks, bwd_hooks = list(fwd_hooks), list(bwd_hooks)
        pairs = [check_hook(hook) for hook in (*fwd_hooks, *bwd_hooks)]
        names = [n for name, hook in pairs for n in self._named(name, hook)]
        self._check_points(names)
        with super().hooks(fwd_hooks, bwd_hooks, reset_hooks_end, clear_contexts):
            try:
                yield self
                run.check_outermost()
            finally:
                run.drop_interrupted()

    @refuse_wrong_types
    def add_hook(
        self, name: str | Callable[[str], bool], hook: Callable[..., Any], *args: Any, **kwargs: Any
    ) -> None:
        """As in TransformerLens; raises ValueError on an unknown name."""
        self._check_points(self._named(name, hook))
        super().add_hook(name, hook, *args, **kwargs)

    def _named(self, name: str | Callable[[str], bool], hook: Callable[..., Any]) -> list[str]:
        """The points that a hook is for; raises ValueError where it fits none, or another model."""
        if isinstance(name, str) and name not in self.hook_dict:
            raise ValueError(self._unknown(name))
        names = [name] if isinstance(name, str) else list(filter(name, self.hook_dict))
        if not names:
            raise ValueError(
                f"the names filter of {name_of(hook)} matches none of the {len(self.hook_dict)} "
                f"hook points: expected names such as {next(iter(self.hook_dict))!r}; correct the "
                "filter."
            )
        check = getattr(hook, "check", None)
        if check is not None:
            check(self.n_layers, self.n_heads)
        return names

    def _check_points(self, names: Sequence[str]) -> None:
        """Raise ValueError for a point that would not run, or not as the model computes it."""
        if not names:
            return
        decoder = self.hf_model.get_decoder()
        if not self._seam.is_whole(decoder):
            raise ValueError(
                f"the attention modules of {type(decoder).__name__} are not those that were wrapped: "
                "expected no layer to be replaced or removed; wrap the model again."
            )
        self._seam.stream.renew()
        tower = self._seam.tower
        if tower is not None and any(name.startswith("vision.") for name in names):
            if not tower.is_whole(self.hf_model):
                raise ValueError(
                    f"the vision tower {type(tower.stack.whole).__name__} is not the one that was "
                    "wrapped: expected no part of it to be replaced or removed; wrap the model again."
                )
            tower.stream.renew()
        self._seam.check_points(decoder, names)
        run = self._seam.run
        run.hooking = threading.current_thread()
        for name in names:  # compiled steps raise a flag, which has to be there before them
            if not name.startswith("vision."):  # which runs in no step
                run.flag(self.hook_dict[name], self._device_of(name))

    def _device_of(self, name: str) -> Any:
        """Where a point of the decoder is computed."""
        layer, stack = layer_of(name), self._seam.stream.stack
        if not isinstance(self.hook_dict[name], TapPoint):
            return self._seam.device_of(layer)
        if stack is not None and layer >= 0:
            return execution_device(stack.blocks[layer])
        return execution_device(self.hf_model.get_decoder())

    def _unknown(self, name: str) -> str:
        layer = layer_of(name)
        attention = ".attn." in name or name.endswith("attn_out")
        if 0 <= layer < self.n_layers and layer not in self.attention_layers and attention:
            return (
                f"unknown hook name {name!r}: expected a point of a layer with attention, which are "
                f"{format_layers(self.attention_layers)} of {self.n_layers}; choose one of these."
            )
        near = difflib.get_close_matches(name, self.hook_dict, n=1, cutoff=0.0)
        points = ", ".join(row.name for row in rows_of("layer", "attention"))
        others = ", ".join(row.name for row in rows_of("model"))
        vision = ", vision.blocks.LAYER.POINT" if self._seam.tower is not None else ""
        return (
            f"unknown hook name {name!r}: expected blocks.LAYER.POINT with a layer of "
            f"{format_layers(range(self.n_layers))} and a point of {points}{vision}, or one of "
            f"{others}; did you mean {near[0]!r}?"
        )

    def run_with_cache(
        self,
        *model_args: Any,
        pos_slice: Any = None,
        remove_batch_dim: bool = False,
        incl_bwd: bool = False,
        return_cache_object: bool = True,
        **kwargs: Any,
    ) -> Any:
        """As in TransformerLens: the output, and an `ActivationCache` of the hook points.

        Without `names_filter`, the cache has all points of the language model that can be hooked
        exactly. `hook_result` is included only under `cfg.use_attn_result`. Points of the vision tower
        need a filter that names them. If a filter function matches them, those that can be shown
        exactly are included.

        Args:
            model_args, kwargs: arguments of the forward, and those of TransformerLens.
            pos_slice: positions to keep.
            remove_batch_dim: remove the first axis, for a single sample.
            incl_bwd: include gradients of `return_type="loss"`, as "NAME_grad".
            return_cache_object: False for a plain dictionary.

        Raises:
            ValueError: a slice of positions although only one row is shown, a batch dimension that
                cannot be removed, or gradients of an output that is not a loss.
        """
        if incl_bwd and kwargs.get("return_type") != "loss":
            raise ValueError(
                'incl_bwd=True needs a loss, and the output is none: expected return_type="loss"; '
                "pass it, or use model.hooks(bwd_hooks=...) and call backward on your own loss."
            )
        names_filter = kwargs.pop("names_filter", None)
        names = self._cached_names(names_filter, pos_slice is not None)
        rows = [name for name in names if name.endswith(KEYED)]
        if pos_slice is not None and self.query_rows == "last" and rows:
            raise ValueError(
                f"pos_slice={pos_slice!r} of scores and pattern that show the last row alone: expected "
                'None; set model.query_rows = "all" to slice positions.'
            )
        inputs = [*model_args[:1], *(kwargs.get(n) for n in ("input_ids", "inputs_embeds"))]
        batch = next((len(x) for x in inputs if isinstance(x, Tensor | list | tuple)), 1)
        if remove_batch_dim and batch > 1:
            raise ValueError(
                f"remove_batch_dim=True for {batch} samples: expected one sample; leave it out."
            )
        of_tower = [name for name in names if name.startswith("vision.")]
        optional = [n for n in of_tower if callable(names_filter) and not self.hook_dict[n].in_use]
        tower = self._seam.tower
        with tower.caching(optional) if tower is not None and of_tower else nullcontext():
            output, cache = super().run_with_cache(
                *model_args,
                names_filter=names,
                pos_slice=pos_slice,
                remove_batch_dim=remove_batch_dim,
                incl_bwd=incl_bwd,
                **kwargs,
            )
        if optional and not cache:
            raise ValueError(
                f"names_filter matches {optional[0]} and others of the vision tower, none of which can "
                "be shown exactly for these images: expected a point that can; name the point to see "
                "the reason."
            )
        if not return_cache_object:
            return output, cache
        from transformer_lens import ActivationCache

        return output, ActivationCache(cache, self, has_batch_dim=not remove_batch_dim)

    def _cached_names(self, names_filter: Any, sliced: bool) -> list[str]:
        """The hook points that a filter of run_with_cache names.

        Raises:
            ValueError: an unknown name, or a slice of positions of a point whose axes differ.
        """
        names = self._checked_filter(names_filter)
        self._seam.stream.renew()
        if names is None:
            return [
                n for n in self.hook_dict if self._is_cached(n) and not (sliced and _unsliced(n))
            ]
        for name in names:
            if sliced and _unsliced(name):
                raise ValueError(
                    f"pos_slice of {name}, whose positions TransformerLens takes for another axis: "
                    "expected None; slice the cached tensor instead."
                )
        if not callable(names_filter):
            return names
        return [n for n in names if not (n.startswith("vision.") and self._is_refused_in_tower(n))]

    def _is_refused_in_tower(self, name: str) -> bool:
        """Whether an earlier forward refused a point of the tower that is read at a module."""
        point, tower = self.hook_dict[name], self._seam.tower
        if tower is None or not isinstance(point, TapPoint):
            return False
        return tower.stream.reason(str(point.key)) is not None

    def _is_cached(self, name: str) -> bool:
        """Whether run_with_cache caches a point without a filter."""
        decoder = self.hf_model.get_decoder()
        if name.startswith("vision.") or self._seam.reason(decoder, name) is not None:
            return False
        return not name.endswith("hook_result") or bool(self.cfg.use_attn_result)

    def get_caching_hooks(self, names_filter: Any = None, *args: Any, **kwargs: Any) -> Any:
        """As in TransformerLens; without a filter, for the points that `run_with_cache` keeps.

        Raises:
            ValueError: the filter names nothing.
        """
        return super().get_caching_hooks(self._cached_names(names_filter, False), *args, **kwargs)

    def add_caching_hooks(self, names_filter: Any = None, *args: Any, **kwargs: Any) -> Any:
        """As in TransformerLens; without a filter, for the points that `run_with_cache` keeps.

        Raises:
            ValueError: the filter names nothing.
        """
        return super().add_caching_hooks(self._cached_names(names_filter, False), *args, **kwargs)

    def _checked_filter(self, names_filter: Any) -> list[str] | None:
        """The hook points that a filter of any kind matches; None for all."""
        if names_filter is None:
            return None
        if callable(names_filter):
            names = list(filter(names_filter, self.hook_dict))
        else:
            names = [names_filter] if isinstance(names_filter, str) else list(names_filter)
        for name in names:
            if name not in self.hook_dict:
                raise ValueError(self._unknown(name))
        if not names:
            raise ValueError(
                "names_filter matches none of the "
                f"{counted(len(self.hook_dict), 'hook point')}: expected names "
                f"such as {next(iter(self.hook_dict))!r}; pass one, or None for all."
            )
        return names


def _unsliced(name: str) -> bool:
    return name.endswith(("hook_rot_q", "hook_rot_k", "hook_image_features"))
