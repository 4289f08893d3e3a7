"""Where the image is: which keys of a sequence are image tokens, text, padding, and the last one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from einops import repeat
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.compiler import is_compiling

from rvelens.files.arguments import refuse_wrong_types
from rvelens.tokens.outlasting import outlasting

# Keys by which buffers are longer than a sequence, so that few steps of a generation make new ones.
SLACK = 256


@dataclass(frozen=True, eq=False)
class Buffers:
    """What maps with one image mask share: the mask and its bias on each device, longer than it.

    Attributes:
        image: the image mask.
        version: torch's count of the edits in place that it had seen.
        by_device: image keys and bias.
        index: what `TokenMap.image_index` gives; empty before it was asked for.
    """

    image: Bool[Tensor, "batch known"]
    version: int | None
    by_device: dict[torch.device, tuple[Tensor, Tensor]] = field(default_factory=dict)
    index: list[tuple[Tensor, Tensor]] = field(default_factory=list)

    @classmethod
    def of(cls, image: Bool[Tensor, "batch known"]) -> Buffers:
        """No buffers yet."""
        return cls(image, None if image.is_inference() else image._version)

    def __reduce__(self) -> Any:
        """Copies count their own edits, from none on."""
        return Buffers.of, (self.image,)

    @property
    def is_edited(self) -> bool:
        """Whether the mask was edited in place since."""
        return self.version is not None and self.image._version != self.version


@dataclass(frozen=True, eq=False)
class TokenMap:
    """Roles of the keys of each sample of a batch; the only place that knows them.

    The map covers the keys seen so far. Keys that a generation appends after `n_known` are text.

    Attributes:
        image: true where a key is a visual token: of an image, or of a frame of a video.
        real: false where a key is padding.
        n_seen: keys seen so far, see `n_keys`; at the end of the prompt where `length` counts on.
        n_image: image tokens of each sample, as Python numbers, so that nobody has to wait for a GPU.
        blank: whether some sample has no real token yet, so that its next one may be padding as well.
        length, n_slots: behind a static cache, where every step has to look the same to a compiled
            graph: the keys seen so far, counted on the device, and the keys that the cache can hold.
    """

    image: Bool[Tensor, "batch known"]
    real: Bool[Tensor, "batch known"]
    n_seen: int
    n_image: tuple[int, ...]
    _buffers: Buffers | None = field(default=None, repr=False)
    blank: bool = False
    length: Int[Tensor, ""] | None = None
    n_slots: int = 0

    def __post_init__(self) -> None:
        if self._buffers is None:
            object.__setattr__(self, "_buffers", Buffers.of(self.image))
        elif self._buffers.image is not self.image:
            raise ValueError(
                "a token map has counts that do not fit its image mask: expected a map made from "
                "two masks; call TokenMap.from_masks(image, real)."
            )

    @classmethod
    def from_inputs(
        cls,
        input_ids: Int[Tensor, "batch key"],
        visual_ids: int | Sequence[int],
        attention_mask: Int[Tensor, "batch key"] | Bool[Tensor, "batch key"] | None = None,
    ) -> TokenMap:
        """Read the map off a prompt: a key is visual where `input_ids` holds one of `visual_ids`."""
        ids = (visual_ids,) if isinstance(visual_ids, int) else tuple(visual_ids)
        image = torch.isin(input_ids, input_ids.new_tensor(ids))
        real = torch.ones_like(image) if attention_mask is None else attention_mask.bool()
        return cls.from_masks(image & real, real)

    @classmethod
    def from_masks(
        cls, image: Bool[Tensor, "batch key"], real: Bool[Tensor, "batch key"]
    ) -> TokenMap:
        """Make a map of two masks over the same keys."""
        counts = torch.stack([image.sum(dim=1), real.sum(dim=1)]).tolist()
        return cls(image, real, image.shape[1], tuple(counts[0]), blank=0 in counts[1])

    @property
    def n_keys(self) -> int:
        """Keys seen so far; at least `image.shape[1]`, larger once tokens were generated."""
        return self.n_seen if self.length is None else int(self.length)

    @property
    def batch(self) -> int:
        """Samples in the batch."""
        return self.image.shape[0]

    @property
    def n_known(self) -> int:
        """Keys whose role was read off the prompt."""
        return self.image.shape[1]

    @property
    def text(self) -> Bool[Tensor, "batch known"]:
        """Keys that are neither image tokens nor padding."""
        return self.real & ~self.image

    @property
    def last(self) -> Int[Tensor, " batch"]:
        """Position of the last real token: the row that predicts the next one."""
        if self.n_keys > self.n_known:
            return torch.full((self.batch,), self.n_keys - 1, device=self.real.device)
        positions = torch.arange(self.n_known, device=self.real.device)
        return (self.real * positions).amax(dim=1)

    def image_keys(self, n_keys: int, device: torch.device) -> Bool[Tensor, "batch {n_keys}"]:
        """Image mask aligned with a layer's own key axis of length `n_keys`.

        A sliding-window layer holds only the newest keys, a static cache holds empty slots at the
        end; both are aligned here.
        """
        return self._aligned(n_keys, device)[0]

    def image_bias(self, n_keys: int, device: torch.device) -> Float[Tensor, "batch {n_keys}"]:
        """0 on image tokens and minus infinity elsewhere, aligned as `image_keys`; float32."""
        return self._aligned(n_keys, device)[1]

    def _aligned(self, n_keys: int, device: torch.device) -> tuple[Tensor, Tensor]:
        """Views of one buffer, which all steps of a generation share."""
        if self.length is not None:
            return self._aligned_on_device(self.length, n_keys, device)
        start = max(self.n_seen - n_keys, 0)
        keys, bias = self._buffers_of(start + n_keys, device)
        return keys[:, start : start + n_keys], bias[:, start : start + n_keys]

    def _aligned_on_device(
        self, length: Int[Tensor, ""], n_keys: int, device: torch.device
    ) -> tuple[Tensor, Tensor]:
        """The same, without waiting for the device to know how many keys there are."""
        keys, bias = self._buffers_of(n_keys, device)
        if keys.shape[1] == n_keys:  # a layer as long as the cache, which never slides
            return keys, bias
        index = self._newest(length, n_keys, device)
        return keys.index_select(1, index), bias.index_select(1, index)

    def _buffers_of(self, n_keys: int, device: torch.device) -> tuple[Tensor, Tensor]:
        """Image mask and bias over at least that many keys."""
        buffers = self._buffers
        assert buffers is not None  # __post_init__ makes them
        if not is_compiling() and buffers.is_edited:
            raise ValueError(
                "the image mask of a token map was edited in place: expected unchanged masks; call "
                "TokenMap.from_masks(image, real) with the edited one."
            )
        keys, bias = buffers.by_device.get(device, (None, None))
        if keys is None or bias is None or keys.shape[1] < n_keys:
            n_slots = self.n_slots or n_keys + SLACK
            with outlasting():
                keys = torch.nn.functional.pad(
                    self.image.to(device), (0, max(n_slots - self.n_known, 0))
                )
                bias = torch.where(keys, 0.0, -torch.inf)
            buffers.by_device[device] = keys, bias
        return keys, bias

    def align(
        self, mask: Bool[Tensor, "batch known"], n_keys: int
    ) -> Bool[Tensor, "batch {n_keys}"]:
        """Any mask over the known keys, aligned as in `image_keys`."""
        grown = torch.nn.functional.pad
        if self.length is not None:
            mask = grown(mask, (0, self.n_slots - self.n_known))
            if n_keys >= self.n_slots:
                return grown(mask, (0, n_keys - self.n_slots))
            return mask.index_select(1, self._newest(self.length, n_keys, mask.device))
        start = max(self.n_seen - n_keys, 0)
        mask = mask[:, min(start, self.n_known) :][:, :n_keys]
        return grown(mask, (0, n_keys - mask.shape[1]))

    def _newest(
        self, length: Int[Tensor, ""], n_keys: int, device: torch.device
    ) -> Int[Tensor, " key"]:
        """Positions of a layer's keys: the first ones, or the newest of more."""
        first = (length.to(device) - n_keys).clamp(min=0)
        return (torch.arange(n_keys, device=device) + first).clamp(max=self.n_slots - 1)

    def image_index(self) -> tuple[Int[Tensor, "batch image"], Bool[Tensor, "batch image"]]:
        """Key positions of each sample's image tokens in order, and which entries are not filler.

        Samples with fewer image tokens than the longest one are filled with position 0 at the end.
        """
        buffers = self._buffers
        assert buffers is not None  # __post_init__ makes them
        if is_compiling() or not buffers.index or buffers.is_edited:
            return self._image_index()
        return buffers.index[0]

    def _image_index(self) -> tuple[Int[Tensor, "batch image"], Bool[Tensor, "batch image"]]:
        """The same, and kept for all maps with this image mask: every step of a generation asks."""
        width = max(self.n_image, default=0)
        with outlasting():
            order = self.image.int().argsort(dim=1, descending=True, stable=True)[:, :width]
            counts = torch.tensor(self.n_image, device=order.device)
            valid = torch.arange(width, device=order.device) < counts[:, None]
            index = order * valid, valid
        if self._buffers is not None and not is_compiling():
            self._buffers.index[:] = [index]
        return index

    def on_static_cache(self, n_slots: int) -> TokenMap:
        """The map behind a static cache of `n_slots` keys; `advance` counts what is generated."""
        device = self.image.device
        # One slot behind the prompt at least: what is generated is text, wherever it is looked up.
        n_slots = max(n_slots, self.n_keys + 1)
        with outlasting():
            length = torch.tensor(self.n_keys, device=device)
        # Compiled steps count in place; without the mark they could not use CUDA graphs.
        torch._dynamo.mark_static_address(length)
        tokens = TokenMap(
            self.image, self.real, self.n_keys, self.n_image, None, self.blank, length, n_slots
        )
        tokens._buffers_of(n_slots, device)
        return tokens

    def advance(self) -> None:
        """Count one generated token more, in place."""
        assert self.length is not None
        self.length.add_(1)

    def extend(self, n_new: int) -> TokenMap:
        """The map after `n_new` generated text tokens."""
        n_keys = self.n_keys + n_new
        return TokenMap(self.image, self.real, n_keys, self.n_image, self._buffers, self.blank)

    def append(
        self, new: TokenMap, between: Bool[Tensor, "batch between"] | None = None
    ) -> TokenMap:
        """The map after a further piece of prompt, which may hold images of its own.

        Args:
            new: of the piece.
            between: keys generated since the last prompt that are no padding; None for all.
        """
        grown = torch.nn.functional.pad
        gap = (0, self.n_keys - self.n_known)
        image = torch.cat([grown(self.image, gap), new.image], dim=1)
        real = grown(self.real, gap, value=True)
        if between is not None and between.shape == (self.batch, gap[1]):
            real[:, self.n_known :] = between.to(real.device)
        return TokenMap.from_masks(image, torch.cat([real, new.real], dim=1))

    def crop(self, n_keys: int) -> TokenMap:
        """The map of the first `n_keys` keys, after a cache was cut back to them."""
        if n_keys >= self.n_known:
            return TokenMap(self.image, self.real, n_keys, self.n_image, self._buffers, self.blank)
        return TokenMap.from_masks(self.image[:, :n_keys], self.real[:, :n_keys])

    def pick(self, samples: Int[Tensor, " picked"]) -> TokenMap:
        """The map of some samples, in the order given, each as often as it is named."""
        n_image = tuple(self.n_image[n] for n in samples.tolist())
        samples = samples.to(self.image.device)
        image, real = self.image[samples], self.real[samples]
        return TokenMap(image, real, self.n_keys, n_image, blank=self.blank)

    def expand(self, batch: int) -> TokenMap:
        """The map with every sample repeated in place, as beams and returned sequences are.

        Raises:
            ValueError: `batch` is no multiple of the map's own.
        """
        if batch == self.batch:
            return self
        if batch % self.batch:
            raise ValueError(
                f"a forward of batch size {batch} follows a prompt of batch size {self.batch}: "
                "expected a multiple of it; prepare the batch that you run."
            )
        times = batch // self.batch
        image, real = (
            repeat(m, "batch known -> (batch beam) known", beam=times)
            for m in (self.image, self.real)
        )
        n_image = tuple(n for n in self.n_image for _ in range(times))
        return TokenMap(image, real, self.n_keys, n_image, blank=self.blank)


@refuse_wrong_types
def attach_tokens(hook_points: Iterable[Any], tokens: TokenMap | None) -> None:
    """Hand a token map to hook points of another model, so that rvelens' hooks run there.

    For a TransformerLens bridge, `attach_tokens(bridge.hook_dict.values(), tokens)` before the forward;
    `rvelens.follow_bridge` does so at every one. None takes the map away again.
    `HookedLVLM` finds the map by itself, or takes it as `model(..., tokens=tokens)`.

    Raises:
        ValueError: hook points of a HookedLVLM, which find another map at every forward.
    """
    for point in hook_points:
        if getattr(point, "finds_tokens", False):
            raise ValueError(
                f"{point.name} is a hook point of a HookedLVLM, which finds a token map at every "
                "forward: expected a hook point of another model; pass tokens= to the "
                "HookedLVLM's forward or generate."
            )
        point.ctx["tokens"] = tokens


def tokens_of(hook: Any) -> TokenMap:
    """The token map of the forward in progress, for use inside a hook.

    Raises:
        ValueError: the roles of the tokens are not known.
    """
    tokens = hook.ctx.get("tokens")
    if tokens is None:
        raise ValueError(
            f"{hook.name} has no token map: expected input_ids of the whole prompt, or a cache that a "
            "wrapped model filled; pass tokens=TokenMap.from_masks(image, real) to the HookedLVLM, or "
            "call rvelens.attach_tokens for another model."
        )
    return tokens
