"""Identifies the weights of a model, and checks that a profile was measured on them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import PurePath
from weakref import WeakKeyDictionary

import torch

from rvelens.heads.profile import ARSProfile
from rvelens.model.hooked_lvlm import HookedLVLM

# Digests by model; edited weights have other version counters.
_DIGESTS: WeakKeyDictionary[torch.nn.Module, tuple[object, str]] = WeakKeyDictionary()


def weights_digest(model: HookedLVLM) -> str:
    """SHA-256 over each tensor's name, shape, dtype, sum, and 1024 evenly spaced values.

    It does not cover every byte, which takes minutes for large models. A changed weight changes the
    sum.
    """
    return tensors_digest(model.hf_model.state_dict())


def tensors_digest(tensors: Mapping[str, torch.Tensor]) -> str:
    """`weights_digest` of tensors by name."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        flat = tensor.detach().flatten()
        sample = flat[:: max(flat.numel() // 1024, 1)].float().cpu().numpy().tobytes()
        total = float(flat.sum(dtype=torch.float64))
        values = hashlib.sha256(sample).hexdigest()
        line = f"{name}\t{tuple(tensor.shape)}\t{tensor.dtype}\t{total!r}\t{values}"
        digest.update(line.encode("utf-8", "surrogatepass") + b"\n")
    return digest.hexdigest()


def dtype_name(model: HookedLVLM) -> str:
    """The precision of a model's weights, such as "bfloat16"."""
    return str(model.hf_model.dtype).removeprefix("torch.")


def check_profile_of(model: HookedLVLM, profile: ARSProfile) -> None:
    """Raise ValueError if a profile was measured on another model.

    If the profile has a digest of weights in the same precision, the digests are compared. Otherwise
    the last parts of the models' names are compared. For a published ranking, and for a profile or a
    model without a name, only the shape must match.
    """
    have, want = (profile.n_layers, profile.n_heads), (model.n_layers, model.n_heads)
    if have != want:
        raise ValueError(
            f"a profile of {have[0]} layers x {have[1]} heads for a model of {want[0]} x {want[1]}: "
            "expected a profile of this model; measure it with `rvelens scan` or score_heads."
        )
    about = profile.about
    if about.get("weights") is not None and about.get("dtype") == dtype_name(model):
        if about["weights"] != _digest_of(model):
            raise ValueError(
                f"the profile was measured on other weights, of {about.get('model')}, than those "
                f"of {model.name}: expected scores of the same weights; measure them with `rvelens "
                "scan` or score_heads."
            )
        return
    named, name = _last(about.get("model") or ""), _last(model.name)
    if profile.mean is not None and named and name and named != name:
        raise ValueError(
            f"the profile was measured on {about['model']}, and this is {model.name}: expected "
            "scores of this model; measure them with `rvelens scan` or score_heads."
        )


def _last(name: str) -> str:
    return PurePath(name.replace("\\", "/")).name


def _digest_of(model: HookedLVLM) -> str:
    """`weights_digest`, which takes seconds for a large model, computed once as long as they stay."""
    tensors = model.hf_model.state_dict().values()
    if any(tensor.is_inference() for tensor in tensors):  # these count no versions
        return weights_digest(model)
    state = tuple((tensor.data_ptr(), tensor._version) for tensor in tensors)
    stored = _DIGESTS.get(model.hf_model)
    if stored is None or stored[0] != state:
        stored = _DIGESTS[model.hf_model] = (state, weights_digest(model))
    return stored[1]
