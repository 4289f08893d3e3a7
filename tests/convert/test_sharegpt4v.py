"""ShareGPT4V's conversion against a tiny LLaVA that the test itself wrote in the original format."""

from __future__ import annotations

import json
import os
import pickle
from pathlib import Path

import pytest
import sentencepiece
import torch
from original_checkpoint import (
    N_ROWS,
    TOWER,
    VISION_CONFIG,
    original_tensors,
    write_checkpoint,
    write_shards,
)
from safetensors import safe_open
from safetensors.torch import save_file
from tiny_models import IMAGES, QUESTIONS, build
from transformers import LlavaForConditionalGeneration

from rvelens import HookedLVLM
from rvelens.convert import convert_sharegpt4v
from rvelens.convert.original import read_tokenizer
from rvelens.convert.shards import read_shard

PADDED = 128


def convert(src: Path, dst: Path, **options):
    options.setdefault("vision_config", src / "vision.json")
    return convert_sharegpt4v(src, dst, **options)


def padded_reference():
    """The tiny LLaVA with its vocabulary grown to 128 rows, each new one the mean, by a loop."""
    hf_model, processor = build("llava")
    for module in (hf_model.get_input_embeddings(), hf_model.get_output_embeddings()):
        total = torch.zeros(64)
        for row in module.weight:
            total += row.detach()
        new = [*module.weight.detach(), *[total / N_ROWS] * (PADDED - N_ROWS)]
        module.weight = torch.nn.Parameter(torch.stack(new))
    return hf_model, processor


def written(folder: Path) -> dict[str, torch.Tensor]:
    """Every tensor of a converted folder, and a fault where a name is there twice."""
    tensors: dict[str, torch.Tensor] = {}
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118
                assert name not in tensors
                tensors[name] = file.get_tensor(name)
    return tensors


@pytest.mark.parametrize(("kind", "n_shards"), [("bin", 2), ("bin", 1), ("safetensors", 3)])
def test_logits_are_those_of_the_model_that_was_exported(tmp_path, kind, n_shards):
    src = write_checkpoint(tmp_path / "src", kind=kind, n_shards=n_shards)
    convert(src, tmp_path / "dst")
    model = HookedLVLM.from_pretrained(tmp_path / "dst", family="sharegpt4v")
    assert model.family.name == "sharegpt4v"
    reference, _ = padded_reference()
    inputs = model.prepare(IMAGES, QUESTIONS)
    with torch.no_grad():
        logits, expected = model(**inputs), reference(**inputs).logits
    assert torch.equal(logits[..., :N_ROWS], expected[..., :N_ROWS])
    torch.testing.assert_close(logits, expected, rtol=0, atol=1e-5)
    # The rows that were added win no greedy choice.
    assert bool((logits[..., N_ROWS:].amax(-1) < logits[..., :N_ROWS].amax(-1)).all())


@pytest.mark.parametrize("kind", ["bin", "safetensors"])
def test_every_tensor_is_placed_once_and_none_left_over(tmp_path, kind):
    src = write_checkpoint(tmp_path / "src", kind=kind)
    done = convert(src, tmp_path / "dst")
    reference, _ = padded_reference()
    wanted = reference.state_dict()
    tensors = written(tmp_path / "dst")
    assert tensors.keys() == wanted.keys()
    assert done.placed == len(wanted)
    assert done.placed + len(done.dropped) == len(original_tensors())
    assert len(done.dropped) == 4
    for name, tensor in tensors.items():
        rows = slice(N_ROWS if tensor.shape[0] == PADDED else None)
        assert torch.equal(tensor[rows], wanted[name][rows]), name
    assert done.n_bytes == sum(t.nbytes for t in tensors.values())
    index = json.loads((tmp_path / "dst" / "model.safetensors.index.json").read_text())
    assert index["weight_map"].keys() == tensors.keys()
    _, info = LlavaForConditionalGeneration.from_pretrained(
        tmp_path / "dst", output_loading_info=True
    )
    assert not any(info[what] for what in ("missing_keys", "unexpected_keys", "mismatched_keys"))


def test_configuration_and_processor(tmp_path):
    convert(write_checkpoint(tmp_path / "src", mm_vision_select_layer=-1), tmp_path / "dst")
    model = HookedLVLM.from_pretrained(tmp_path / "dst", family="sharegpt4v")
    config, processor = model.hf_model.config, model.processor
    assert config.vision_feature_layer == -1
    assert config.vision_feature_select_strategy == "default"
    assert config.projector_hidden_act == "gelu"
    assert config.image_seq_length == 16
    assert config.text_config.vocab_size == PADDED
    assert config.text_config.rms_norm_eps == 1e-6
    assert config.image_token_id == processor.tokenizer.convert_tokens_to_ids("<image>")
    assert (processor.patch_size, processor.num_additional_image_tokens) == (8, 1)
    assert processor.tokenizer.pad_token == "<pad>"
    assert processor.image_processor.do_pad
    # Padded to a square and not cropped: the grid covers the whole of a wide image.
    assert model.image_grid(IMAGES[0]).tiles[0].box[1] < 0
    assert len(model.ask(IMAGES[0], QUESTIONS[0])) == 1


def test_a_square_crop_where_the_source_crops(tmp_path):
    convert(write_checkpoint(tmp_path / "src", image_aspect_ratio=None), tmp_path / "dst")
    model = HookedLVLM.from_pretrained(tmp_path / "dst", family="sharegpt4v")
    assert not model.processor.image_processor.do_pad


@pytest.mark.parametrize("as_file", [False, True])
@pytest.mark.parametrize("prefix", ["", "vision_model.", "vision_tower.vision_model."])
def test_a_vision_tower_in_a_folder_of_its_own(tmp_path, prefix, as_file):
    tensors = original_tensors()
    tower = {
        prefix + name.removeprefix(TOWER): tensors.pop(name)
        for name in list(tensors)
        if name.startswith(TOWER)
    }
    src = write_checkpoint(tmp_path / "src", tensors)
    (tmp_path / "tower").mkdir()
    (tmp_path / "tower" / "config.json").write_text(json.dumps({"vision_config": VISION_CONFIG}))
    write_shards(tmp_path / "tower", tower, "bin", 1)
    path = tmp_path / "tower"
    path = path / "pytorch_model-00001-of-00001.bin" if as_file else path
    done = convert(src, tmp_path / "dst", vision_tower=path, vision_config=None)
    reference, _ = padded_reference()
    assert written(done.folder).keys() == reference.state_dict().keys()
    with pytest.raises(ValueError, match=r"no weights of the vision tower .* give its folder"):
        convert(src, tmp_path / "other")


def test_precision(tmp_path):
    src = write_checkpoint(tmp_path / "src")
    convert(src, tmp_path / "dst", dtype="bfloat16")
    assert {t.dtype for t in written(tmp_path / "dst").values()} == {torch.bfloat16}
    model = HookedLVLM.from_pretrained(tmp_path / "dst", family="sharegpt4v", dtype="auto")
    assert model.hf_model.dtype == torch.bfloat16
    half = {k: v.half() for k, v in original_tensors().items() if "position_ids" not in k}
    half[TOWER + "post_layernorm.bias"] = half[TOWER + "post_layernorm.bias"].float()
    convert(write_checkpoint(tmp_path / "half", half), tmp_path / "dst16")
    assert {t.dtype for t in written(tmp_path / "dst16").values()} == {torch.float16}
    with pytest.raises(ValueError, match="dtype 'int8': expected one of auto, float32"):
        convert(src, tmp_path / "dst8", dtype="int8")


def test_one_shard_is_read_after_the_other_is_written(tmp_path):
    src = write_checkpoint(tmp_path / "src", n_shards=3)
    seen = []

    def progress(paths):
        for path in paths:
            seen.append(len(list(tmp_path.glob(".dst.*.partial/*.safetensors"))))
            yield path

    convert(src, tmp_path / "dst", progress=progress)
    assert seen == [0, 1, 2]
    assert len(list((tmp_path / "dst").glob("*.safetensors"))) == 3


Q_PROJ = "model.layers.1.self_attn.q_proj.weight"
FAULTS = [
    ({"model.layers.9.mlp.up_proj.weight": torch.zeros(64, 64)}, r"1 unknown \(model\.layers\.9\.mlp"),
    ({"model.image_newline": torch.zeros(64)}, r"1 unknown \(model\.image_newline\)"),
    ({"model.multi_modal_projector.linear_1.bias": torch.zeros(64)}, r"1 unknown \(model\.multi_modal"),
    ({Q_PROJ: None}, r"1 missing \(model\.language_model\.layers\.1\.self_attn\.q_proj\.weight\)"),
    ({"lm_head.weight": None}, r"1 missing \(lm_head\.weight\)"),
    ({TOWER + "post_layernorm.bias": None}, r"1 missing \(model\.vision_tower\.post_layernorm\.bias\)"),
    ({Q_PROJ: torch.zeros(64, 32)}, r"1 misshapen \(.*q_proj\.weight float32 \[64, 32\] for \[64"),
    ({Q_PROJ: torch.zeros(64, 64, dtype=torch.int8)}, r"1 misshapen \(.*int8 \[64, 64\] for"),
    ({"lm_head.weight": torch.zeros(95, 64)}, r"1 misshapen \(lm_head\.weight float32 \[95, 64\] for"),
    (
        {"model.vision_tower.vision_model.post_layernorm.bias": torch.zeros(32)},
        r"1 there twice \(model\.vision_tower.* in pytorch_model-0000\d-of-00002\.bin and pyt",
    ),
    ({f"x{n}": torch.zeros(1) for n in range(9)}, r"9 unknown \(x1, x3, x5, \.\.\.\)"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "says"), FAULTS)
def test_a_tensor_too_many_too_few_or_of_another_shape(tmp_path, change, says):
    tensors = {k: v for k, v in (original_tensors() | change).items() if v is not None}
    src = write_checkpoint(tmp_path / "src", tensors)
    with pytest.raises(ValueError, match=rf"do not fit its config\.json: {says}"):
        convert(src, tmp_path / "dst")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["src"]


@pytest.mark.parametrize("kind", ["bin", "safetensors"])
def test_one_name_in_two_shards(tmp_path, kind):
    src = write_checkpoint(tmp_path / "src", kind=kind)
    shards = sorted(src.glob(f"*-of-*.{kind}"))
    tensors = [{name: t.clone() for name, t in read_shard(shard)} for shard in shards]
    extra = tensors[1] | {"lm_head.weight": original_tensors()["lm_head.weight"].clone()}
    extra |= {Q_PROJ: original_tensors()[Q_PROJ].clone()}
    torch.save(extra, shards[1]) if kind == "bin" else save_file(extra, shards[1])
    with pytest.raises(ValueError, match="1 there twice"):
        convert(src, tmp_path / "dst")


@pytest.mark.parametrize("kind", ["bin", "safetensors"])
@pytest.mark.parametrize("keep", [0, 10, 0.5, -1])
def test_a_truncated_file(tmp_path, kind, keep):
    src = write_checkpoint(tmp_path / "src", kind=kind)
    shard = sorted(src.glob(f"*-of-*.{kind}"))[1]
    data = shard.read_bytes()
    shard.write_bytes(data[: int(len(data) * keep) if isinstance(keep, float) else keep])
    with pytest.raises(ValueError, match=r"00002-of-00002.*(cannot be read|holds more than)"):
        convert(src, tmp_path / "dst")
    assert not (tmp_path / "dst").exists()


def test_a_missing_shard_and_no_shards(tmp_path):
    src = write_checkpoint(tmp_path / "src")
    sorted(src.glob("*-of-*.bin"))[0].unlink()
    with pytest.raises(
        ValueError, match=r"no file .*00001-of-00002\.bin, which pytorch_model\.bin"
    ):
        convert(src, tmp_path / "dst")
    for path in src.glob("pytorch_model*"):
        path.unlink()
    with pytest.raises(ValueError, match=r"no weights in .*: expected model\*\.safetensors or"):
        convert(src, tmp_path / "dst")


class Runs:
    """What a malicious checkpoint holds: unpickling it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.mark.parametrize("as_zip", [True, False])
def test_a_pickle_that_runs_code_is_refused(tmp_path, as_zip):
    src = write_checkpoint(tmp_path / "src")
    shard = sorted(src.glob("*-of-*.bin"))[0]
    entries = {"lm_head.weight": Runs(tmp_path / "ran")}
    if as_zip:
        torch.save(entries, shard)
    else:
        shard.write_bytes(pickle.dumps(entries))
    with pytest.raises(ValueError, match=r"expected a file that loads without|cannot be read"):
        convert(src, tmp_path / "dst")
    assert not (tmp_path / "ran").exists()
    # It would have run: the same file, trusted.
    if as_zip:
        torch.load(shard, weights_only=False)
        assert (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("content", "says"),
    [([torch.zeros(1)], "holds a list: expected tensors by name"),
     ({"epoch": 3}, "'epoch' in .* is an int: expected only tensors")],
)  # fmt: skip
def test_no_dictionary_of_tensors(tmp_path, content, says):
    src = write_checkpoint(tmp_path / "src")
    torch.save(content, sorted(src.glob("*-of-*.bin"))[0])
    with pytest.raises(ValueError, match=says):
        convert(src, tmp_path / "dst")


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({"model_type": "llama"}, "model_type is 'llama' .* expected 'share4v' or 'llava'"),
        ({"mm_projector_type": "linear"}, "mm_projector_type is 'linear' .* expected 'mlp2x_gelu'"),
        ({"mm_vision_select_feature": "cls_patch"}, "'cls_patch' .* expected 'patch'"),
        ({"mm_use_im_start_end": True}, "mm_use_im_start_end is True"),
        ({"image_aspect_ratio": "anyres"}, "image_aspect_ratio is 'anyres' .* 'pad' or 'square'"),
        ({"tie_word_embeddings": True}, "tie_word_embeddings is True"),
        ({"vocab_size": None}, "vocab_size is None .* expected a number"),
        ({"hidden_size": "64"}, "hidden_size is '64'"),
        ({"num_attention_heads": 0}, "num_attention_heads is 0"),
        ({"mm_vision_select_layer": [1]}, r"mm_vision_select_layer is \[1\]"),
        (
            {"hidden_size": 63},
            r"makes no LlamaConfig \(.*63.*\): expected valid values",
        ),
        ({"num_hidden_layers": 4}, r"\d+ missing \(model\.language_model\.layers\.3\."),
    ],
)
def test_a_configuration_that_cannot_be_kept(tmp_path, config, says):
    src = write_checkpoint(tmp_path / "src", **config)
    with pytest.raises(ValueError, match=says):
        convert(src, tmp_path / "dst")
    assert not (tmp_path / "dst").exists()


def test_the_tower_has_another_configuration(tmp_path):
    src = write_checkpoint(tmp_path / "src")
    with pytest.raises(ValueError, match=r"misshapen .* for \[1024"):  # CLIP ViT-L/14
        convert(src, tmp_path / "dst", vision_config=None)
    (src / "vision.json").write_text(json.dumps({**VISION_CONFIG, "model_type": "siglip"}))
    with pytest.raises(ValueError, match=r"vision\.json configures no CLIP tower"):
        convert(src, tmp_path / "dst")
    (src / "vision.json").write_text("[1]")
    with pytest.raises(ValueError, match=r"vision\.json holds a list: expected a JSON object"):
        convert(src, tmp_path / "dst")
    (src / "vision.json").write_text("{")
    with pytest.raises(ValueError, match=r"vision\.json is not JSON"):
        convert(src, tmp_path / "dst")


def test_places_that_cannot_be(tmp_path):
    src = write_checkpoint(tmp_path / "src")
    with pytest.raises(ValueError, match=r"src exists and is not an empty folder"):
        convert(src, src)
    with pytest.raises(ValueError, match=r"no folder .*nowhere for dst"):
        convert(src, tmp_path / "nowhere" / "dst")
    with pytest.raises(ValueError, match=r"no file .*config\.json"):
        convert_sharegpt4v(tmp_path / "none", tmp_path / "dst")
    (tmp_path / "dst").mkdir()
    convert(src, tmp_path / "dst")
    with pytest.raises(ValueError, match=r"dst exists and is not an empty folder"):
        convert(src, tmp_path / "dst")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (src / name).unlink()
    with pytest.raises(ValueError, match=r"no tokenizer in .*src"):
        convert(src, tmp_path / "other")


def test_an_interruption_leaves_nothing(tmp_path):
    src = write_checkpoint(tmp_path / "src")

    def progress(paths):
        yield paths[0]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        convert(src, tmp_path / "dst", progress=progress)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["src"]


CORPUS = "USER: what is the man doing\na man rides a surfboard in the image\nASSISTANT: yes or no\n"


def test_sentencepiece_tokens_are_those_of_the_original_code(tmp_path):
    (tmp_path / "corpus.txt").write_text(CORPUS * 20)
    sentencepiece.SentencePieceTrainer.train(
        input=str(tmp_path / "corpus.txt"),
        model_prefix=str(tmp_path / "tokenizer"),
        vocab_size=340,
        model_type="bpe",
        byte_fallback=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        hard_vocab_limit=False,
        minloglevel=2,
    )
    config = {"tokenizer_class": "LlamaTokenizer", "bos_token": "<s>", "eos_token": "</s>"}
    config |= {"unk_token": "<unk>", "legacy": False, "add_bos_token": True}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    (tmp_path / "config.json").write_text('{"model_type": "share4v"}')
    tokenizer = read_tokenizer(tmp_path)
    pieces = sentencepiece.SentencePieceProcessor(model_file=str(tmp_path / "tokenizer.model"))
    before, after = "USER: ", "\nwhat is the man doing ASSISTANT:"
    n = pieces.get_piece_size()
    # The original encodes what stands before and after the image apart, and joins the two.
    expected = [1, *pieces.encode(before), n, *pieces.encode(after)]
    assert tokenizer(f"{before}<image>{after}").input_ids == expected
    assert (tokenizer.pad_token, tokenizer.pad_token_id, len(tokenizer)) == ("<pad>", n + 1, n + 2)
    tokenizer.save_pretrained(tmp_path / "saved")
    again = type(tokenizer).from_pretrained(tmp_path / "saved")
    assert again(f"{before}<image>{after}").input_ids == expected
    # A space behind the image is the exception that `read_tokenizer` names.
    original = pieces.encode(" what is", out_type=str)
    converted = tokenizer.convert_ids_to_tokens(tokenizer("<image> what is").input_ids)
    assert original[0] == "▁"
    assert converted[converted.index("<image>") + 1 :] == original[1:]
