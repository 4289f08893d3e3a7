"""Hook points that are read at the model's own modules.

A source says which tensor of which module a point shows. Its torch hook is on the module only while the
point has hooks, so that other layers run what they ran before.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn
from torch.compiler import is_compiling

from rvelens.seam.arguments import Keywords
from rvelens.seam.firing import fire_and_compare
from rvelens.seam.forward import Run
from rvelens.seam.hook_point import Point

Fire = Callable[[Tensor], tuple[Tensor, bool]]


class TapPoint(Point):
    """A hook point with a source.

    The source is looked for when the first hook comes.

    Attributes:
        key: of this point among those of the model, such as "3.hook_resid_mid".
        source: where the torch hook is, whose handle is `handle`; None while no hook is on.
    """

    handle: Any = None
    source: Any = None

    def __init__(self, run: Run, key: str, find: Callable[[str], Any]) -> None:
        super().__init__()
        self.run, self.key, self.find = run, key, find
        disable: Any = torch.compiler.disable
        self._show_uncompiled = disable(self._show)

    def refresh(self) -> None:
        """Read off what is on, and put the torch hook on the source or take it off."""
        if self.in_use and self.handle is None:
            self.source = self.find(self.key)
            self.handle = None if self.source is None else self.source.hook(self.show)
        elif self.handle is not None and not self.in_use:
            self.handle.remove()
            self.handle = self.source = None
        super().refresh()

    def add_hook(self, *args: Any, **kwargs: Any) -> Any:
        """As in TransformerLens.

        Raises:
            ValueError: the tensor of this point cannot be shown exactly.
        """
        self.find(self.key)
        return super().add_hook(*args, **kwargs)

    def show(self, x: Shaped[Tensor, "*any"]) -> tuple[Shaped[Tensor, "*any"], bool]:
        """What the hooks made of `x`, and whether it has to take the place of `x`.

        It does where they edited it, and where a gradient has to pass through what they were shown.
        """
        if is_compiling() and not self.run.in_step:
            return self._show_uncompiled(x)
        return self._show(x)

    def _show(self, x: Shaped[Tensor, "*any"]) -> tuple[Shaped[Tensor, "*any"], bool]:
        run = self.run
        forward = run.forward_at(self.name)
        if not forward.hooked:
            return x, False
        if not is_compiling():
            forward.fired.add(self)
        y, edited = fire_and_compare(run, self, x, forward)
        if edited:
            run.keep(self, y)
        return y, edited or y.requires_grad


class _Tap:
    """A torch hook of a source; its copies in a copied model do nothing."""

    def __init__(self, source: Any, fire: Fire) -> None:
        self.source, self.fire = source, fire

    def __reduce__(self) -> tuple[Any, tuple[()]]:
        return Idle, ()


class Idle:
    """A torch hook that does nothing, in a copy of a model."""

    def __call__(self, *args: Any, **kwargs: Any) -> None:
        """Leave everything as it is."""


@dataclass(frozen=True, eq=False)
class Input:
    """The hidden states that a module gets: what its hook returns takes their place.

    Attributes:
        first: run before the other points of this input.
    """

    module: nn.Module
    first: bool = False

    def hook(self, fire: Fire) -> Any:
        """A handle of the torch hook."""
        return self.module.register_forward_pre_hook(
            _OnInput(self, fire), with_kwargs=True, prepend=self.first
        )


class _OnInput(_Tap):
    def __call__(self, module: nn.Module, args: tuple[Any, ...], kwargs: Keywords) -> Any:
        # A copy: it may be the caller's own tensor, and the block before shows it too.
        y, _ = self.fire(hidden_of(args, kwargs).clone())
        return with_hidden(args, kwargs, y)


@dataclass(frozen=True, eq=False)
class InputInPlace:
    """The hidden states that a module gets, which the model keeps for its residual stream as well.

    What a hook returns is written into them.

    Attributes:
        view: shows them in another shape.
    """

    module: nn.Module
    view: Callable[[Tensor], Tensor] | None = None

    def hook(self, fire: Fire) -> Any:
        """A handle of the torch hook."""
        return self.module.register_forward_pre_hook(_OnInputInPlace(self, fire), with_kwargs=True)


class _OnInputInPlace(_Tap):
    def __call__(self, module: nn.Module, args: tuple[Any, ...], kwargs: Keywords) -> None:
        x = hidden_of(args, kwargs)
        x = x if self.source.view is None else self.source.view(x)
        y, replaces = self.fire(x.clone())  # what a hook stored must not change with the stream
        if replaces:
            x.copy_(y)


@dataclass(frozen=True, eq=False)
class Output:
    """What a module returns, or the part of it that `view` shows.

    Attributes:
        view: shows the part as a view of the output; None for all of it.
    """

    module: nn.Module
    view: Callable[[Tensor], Tensor] | None = None

    def hook(self, fire: Fire) -> Any:
        """A handle of the torch hook."""
        # Before transformers' own hook, which keeps hidden states that a tower's features are made of.
        return self.module.register_forward_hook(_OnOutput(self, fire), prepend=True)


class _OnOutput(_Tap):
    def __call__(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
        x, view = first_of(output), self.source.view
        y, replaces = self.fire(x if view is None else view(x))
        if not replaces:
            return None
        if view is not None:
            whole = x.clone()
            view(whole).copy_(y)
            y = whole
        return (y, *output[1:]) if isinstance(output, tuple) else y


@dataclass(frozen=True, eq=False)
class Result:
    """What each head adds through the output projection.

    Attributes:
        n_heads: query heads.
        weight: of the projection, from the module.
    """

    module: nn.Module
    n_heads: int
    weight: Callable[[nn.Module], Float[Tensor, "d_model d_heads"]]

    def hook(self, fire: Fire) -> Any:
        """A handle of the torch hook."""
        return self.module.register_forward_hook(_OnResult(self, fire))

    def of(self, z: Float[Tensor, "*rows d_heads"]) -> Float[Tensor, "*rows head d_model"]:
        """What each head adds."""
        heads = self.weight(self.module).unflatten(1, (self.n_heads, -1))
        z = z.unflatten(-1, (self.n_heads, -1)).to(heads.dtype)
        return torch.einsum("...hd,mhd->...hm", z, heads)


class _OnResult(_Tap):
    def __call__(self, module: nn.Module, args: tuple[Any, ...], output: Tensor) -> Any:
        results = self.source.of(args[0])
        wide = torch.promote_types(output.dtype, torch.float32)
        before = results.detach().sum(dim=-2, dtype=wide)
        y, replaces = self.fire(results)
        if not replaces:
            return None
        # Added to the model's own sum, so that what hooks leave alone stays as it is, bit by bit.
        own = output.detach() + _without_value(getattr(module, "bias", None), output)
        return own + (y.sum(dim=-2, dtype=wide) - before).to(output.dtype)


def _without_value(bias: Tensor | None, output: Tensor) -> Tensor | float:
    """Zeros through which the gradient of a bias passes."""
    return 0.0 if bias is None else (bias - bias.detach()).to(output.dtype)


@dataclass(frozen=True, eq=False)
class Scale:
    """What a norm divides by.

    Attributes:
        centred: the norm takes the mean off first.
        eps: what it adds to the mean of squares.
    """

    module: nn.Module
    centred: bool
    eps: float

    def hook(self, fire: Fire) -> Any:
        """A handle of the torch hook."""
        return self.module.register_forward_hook(_OnScale(self, fire), with_kwargs=True)

    def of(self, x: Float[Tensor, "*rows d_model"]) -> Float[Tensor, "*rows 1"]:
        """The root of the mean square, in float32 at least."""
        x = x if x.dtype == torch.float64 else x.float()
        x = x - x.mean(dim=-1, keepdim=True) if self.centred else x
        return (x.pow(2).mean(dim=-1, keepdim=True) + self.eps).sqrt()


class _OnScale(_Tap):
    def __call__(
        self, module: nn.Module, args: tuple[Any, ...], kwargs: Keywords, output: Tensor
    ) -> Any:
        scale = self.source.of(hidden_of(args, kwargs))
        y, replaces = self.fire(scale.clone())
        if not replaces:
            return None
        bias = getattr(module, "bias", None)
        normed = output if bias is None else output - bias
        # Added to the model's own output, so that a scale that hooks leave alone changes no bit of it.
        change = normed.to(scale.dtype) * (scale / y - 1)
        return output + change.to(output.dtype)


@dataclass(frozen=True, eq=False)
class VisualEmbeds:
    """The visual tokens among the embeddings that a decoder gets."""

    module: nn.Module
    run: Run

    def hook(self, fire: Fire) -> Any:
        """A handle of the torch hook."""
        return self.module.register_forward_pre_hook(_OnVisualEmbeds(self, fire), with_kwargs=True)


class _OnVisualEmbeds(_Tap):
    def __init__(self, source: Any, fire: Fire) -> None:
        super().__init__(source, fire)
        disable: Any = torch.compiler.disable
        self._edit_uncompiled = disable(self._edit)

    def __call__(self, module: nn.Module, args: tuple[Any, ...], kwargs: Keywords) -> Any:
        if kwargs.get("inputs_embeds") is None or (is_compiling() and self.source.run.in_step):
            return None  # text alone, or generated tokens
        return self._edit_uncompiled(args, kwargs)

    def _edit(self, args: tuple[Any, ...], kwargs: Keywords) -> Any:
        embeds = kwargs["inputs_embeds"]
        forward = self.source.run.forward_at("hook_image_features")
        tokens = forward.tokens
        if not forward.hooked:
            return None
        if tokens is None:
            raise ValueError(
                "hook_image_features runs without a token map: expected input_ids of the whole "
                "prompt; pass tokens=TokenMap.from_masks(image, real)."
            )
        visual = tokens.image_keys(tokens.n_keys, embeds.device)[:, -embeds.shape[1] :]
        if not bool(visual.any()):
            return None
        y, replaces = self.fire(embeds[visual])
        if not replaces:
            return None
        whole = embeds.clone()
        whole[visual] = y
        return args, {**kwargs, "inputs_embeds": whole}


# Where a point's tensor comes from; `hook(fire)` puts a torch hook there and returns its handle.
TapSource = Input | InputInPlace | Output | Result | Scale | VisualEmbeds


def hidden_of(args: tuple[Any, ...], kwargs: Keywords) -> Tensor:
    """The hidden states among a module's arguments."""
    return args[0] if args else kwargs["hidden_states"]


def with_hidden(args: tuple[Any, ...], kwargs: Keywords, x: Tensor) -> Any:
    """The arguments with other hidden states."""
    return ((x, *args[1:]), kwargs) if args else (args, {**kwargs, "hidden_states": x})


def first_of(output: Any) -> Tensor:
    """The hidden states among what a module returned."""
    return output[0] if isinstance(output, tuple | list) else output
