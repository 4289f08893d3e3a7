"""Hook points that are read at a model's own modules, and the lens modules that hold them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from rvelens.seam.attention import AttentionHooks
from rvelens.seam.blocks import SourceOrReason
from rvelens.seam.forward import Forward, Run
from rvelens.seam.points import rows_of
from rvelens.seam.taps import Scale, TapPoint, TapSource
from rvelens.seam.watching import Stack


@dataclass(eq=False)
class Stream:
    """The points of a decoder or of a vision tower that are read at modules.

    Attributes:
        run: the forward in progress.
        name: of the class of the decoder or tower, for messages.
        search: locates all sources by one short forward. An error in it is raised at the first hook.
        stack: the model's own blocks; None where no list holds them.
        sources: the result of the search; None before it ran.
        modules: all modules of the decoder or tower at the search; with others, sources are of no use.
        points: by key, such as "3.hook_resid_mid".
        on: keys of the points in use, joined. A compiled graph is compiled again when they change.
    """

    run: Run
    name: str
    search: Callable[[], Mapping[str, SourceOrReason]] | None
    stack: Stack | None = None
    sources: Mapping[str, SourceOrReason] | None = None
    modules: tuple[nn.Module, ...] = ()
    points: dict[str, TapPoint] = field(default_factory=dict)
    on: str = ""

    def point(self, key: str) -> TapPoint:
        """A new point."""
        point = self.points[key] = TapPoint(self.run, key, self.find)
        point.on_change = self._note
        return point

    def _note(self, point: TapPoint) -> None:
        self.on = " ".join(key for key, p in self.points.items() if p.in_use)
        self.run.note_use(self, bool(self.on))

    def locate(self) -> Mapping[str, SourceOrReason] | None:
        """All sources, from one search; None in a tower before its first hooked forward."""
        if self.sources is None and self.search is not None:
            self.renew()
            self.sources = self.search()
        return self.sources

    def renew(self) -> None:
        """Forget the sources if modules were exchanged since, such as by adapters.

        Raises:
            ValueError: a point in use cannot be shown exactly any more.
        """
        modules = () if self.stack is None else tuple(self.stack.whole.modules())
        stale, self.modules = modules != self.modules, modules
        if stale and self.sources is not None:
            self.forget()

    def forget(self) -> None:
        """Forget the sources; those of points in use are searched again.

        Points on modules that are gone stay there: a check behind the forward names them.

        Raises:
            ValueError: a point in use cannot be shown exactly.
        """
        self.sources = None
        for point in self.points.values():
            if point.handle is not None and point.source.module in self.modules:
                point.handle.remove()
                point.handle = None
                point.refresh()

    def find(self, key: str) -> TapSource | None:
        """The source of a point; None in a tower before its first hooked forward.

        Raises:
            ValueError: it cannot be shown exactly, or the short forward fails.
        """
        sources = self.locate()
        if sources is None:
            return None
        self.refuse(key, self.points[key].name or key)
        source = sources[key]
        assert not isinstance(source, str)
        return source

    def refuse(self, key: str, point: str) -> None:
        """Raise ValueError for a point that cannot be shown exactly."""
        reason = self.reason(key)
        if reason is not None:
            raise ValueError(
                f"{point} of {self.name} cannot be shown exactly, since {reason}: expected a tensor "
                "that one module of the model gets or returns; hook another point or layer."
            )

    def reason(self, key: str) -> str | None:
        """Why a point has no source; None where it has one, or before the search."""
        sources = self.locate()
        no_list = "no list of blocks holds its attention"
        source = None if sources is None else sources.get(key, no_list)
        return source if isinstance(source, str) else None

    def missed(self, forward: Forward) -> list[str]:
        """Names of the points in use that did not run in the forward that ends."""
        points = (self.points[key] for key in self.on.split() if key != "hook_image_features")
        return [str(point.name) for point in points if point not in forward.fired]


class Norm(nn.Module):
    """`ln1` and `ln2` of a block: hold `hook_scale`."""

    def __init__(self, scale: TapPoint) -> None:
        super().__init__()
        self.hook_scale = scale


class FinalNorm(Norm):
    """`ln_final`: the model's own final norm, with `hook_scale`."""

    def __init__(self, scale: TapPoint, stream: Stream) -> None:
        super().__init__(scale)
        self._stream = stream

    @property
    def source(self) -> Scale:
        """The norm and how it scales.

        Raises:
            ValueError: no norm follows the last block.
        """
        self._stream.renew()
        source: Any = self._stream.find(self.hook_scale.key)
        return source

    def forward(self, x: Float[Tensor, "*batch d_model"]) -> Float[Tensor, "*batch d_model"]:
        """The output of the model's final norm for `x`; no hook runs."""
        return self.source.module.forward(x)

    @property
    def w(self) -> Float[Tensor, " d_model"]:
        """The weights that the norm multiplies by after it divides by the scale."""
        source = self.source
        weight: Any = next(source.module.parameters())
        if source.centred:
            return weight
        # If all inputs are one number, the norm divides by that number.
        x = torch.full((1, 1, len(weight)), 1e3, dtype=weight.dtype, device=weight.device)
        return source.module.forward(x)[0, 0] - self.b

    @property
    def b(self) -> Float[Tensor, " d_model"]:
        """The bias of the norm; zeros if it has none."""
        bias = getattr(self.source.module, "bias", None)
        weight: Any = next(self.source.module.parameters())
        return torch.zeros_like(weight) if bias is None else bias


class _Block(nn.Module):
    """`blocks.{layer}`: the hook points of a layer, with `attn` where it has attention; no weights."""

    # TransformerLens' logit lens asks for it: the output is one stream [batch query d_model].
    hook_out_is_single_residual_stream: ClassVar[bool] = True

    def __init__(self, stream: Stream, layer: int, attn: AttentionHooks | None) -> None:
        super().__init__()
        for row in rows_of("layer", *([] if attn is None else ["attention"])):
            owner, _, name = row.name.rpartition(".")
            if owner != "attn":
                point = stream.point(f"{layer}.{row.name}")
                setattr(self, owner or name, Norm(point) if owner else point)
        if attn is not None:
            self.attn = attn


def points_of_model(stream: Stream) -> dict[str, TapPoint]:
    """The points that belong to no block, by name."""
    return {row.name: stream.point(row.name) for row in rows_of("model")}


def blocks_of(
    stream: Stream, n_layers: int, attentions: Mapping[int, AttentionHooks]
) -> nn.ModuleList:
    """The blocks of a stream with all points of the table."""
    return nn.ModuleList(_Block(stream, n, attentions.get(n)) for n in range(n_layers))
