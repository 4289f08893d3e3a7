"""TransformerLens' hooks, with mistakes answered before anything is hooked."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from typing import Any

from transformer_lens import HookedRootModule

from rvelens.attention import IMPLEMENTATION, name_of


class HookRoot(HookedRootModule):
    """A `HookedRootModule` that names what is wrong with a hook.

    Attributes:
        hf_model: the model whose attention is hooked.
        n_layers, n_heads: its shape, which hooks may check.
    """

    hf_model: Any
    n_layers: int
    n_heads: int

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
        in_use = self.hf_model.get_decoder().config._attn_implementation
        if in_use != IMPLEMENTATION:
            raise ValueError(
                f"the model's attention was switched to {in_use!r}, in which hooks see nothing: "
                f"expected {IMPLEMENTATION!r}; wrap the model again, which switches it back."
            )
        if isinstance(name, str) and name not in self.hook_dict:
            raise ValueError(self._unknown(name))
        if not isinstance(name, str) and not any(map(name, self.hook_dict)):
            raise ValueError(
                f"the names filter of {name_of(hook)} matches none of the {len(self.hook_dict)} hook "
                f"points: expected names such as {next(iter(self.hook_dict))!r}."
            )
        check = getattr(hook, "check", None)
        if check is not None:
            check(self.n_layers, self.n_heads)

    def _unknown(self, name: str) -> str:
        near = difflib.get_close_matches(name, self.hook_dict, n=1, cutoff=0.0)
        return (
            f"unknown hook name {name!r}: expected a point of layers 0 to {self.n_layers - 1}; "
            f"did you mean {near[0]!r}?"
        )

    def get_caching_hooks(self, names_filter: Any = None, *args: Any, **kwargs: Any) -> Any:
        """As in TransformerLens; raises ValueError where the filter names nothing."""
        return super().get_caching_hooks(self._checked_filter(names_filter), *args, **kwargs)

    def add_caching_hooks(self, names_filter: Any = None, *args: Any, **kwargs: Any) -> Any:
        """As in TransformerLens; raises ValueError where the filter names nothing."""
        return super().add_caching_hooks(self._checked_filter(names_filter), *args, **kwargs)

    def _checked_filter(self, names_filter: Any) -> Any:
        names = [names_filter] if isinstance(names_filter, str) else names_filter
        for name in names if isinstance(names, list | tuple | set) else ():
            if name not in self.hook_dict:
                raise ValueError(self._unknown(name))
        if callable(names_filter) and not any(map(names_filter, self.hook_dict)):
            raise ValueError(
                f"names_filter matches none of the {len(self.hook_dict)} hook points: expected names "
                f"such as {next(iter(self.hook_dict))!r}."
            )
        return list(names) if isinstance(names, tuple | set) else names_filter
