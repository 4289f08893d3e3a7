"""Train `rvelens/tiny` from scratch: a LLaVA of 4 million weights that sees action scenes.

    python examples/train_tiny.py --out tiny
    python examples/train_tiny.py --out parts --recipe parts

Five stages, each with a checkpoint in --out, so that an interrupted run goes on where it stopped:

1. vision: a CLIP tower learns dense patch labels (who, which body part, which object, and which
   object is at whose body part; with the recipe "parts" not the last, so that the language model
   has to look the relation up). The tower is frozen afterwards.
2. clear: projector and language model learn on clear scenes in which verbs and objects are paired
   evenly. With the skew from the start it never leaves the prior.
3. hard: the same on scenes as hard to see as the test's, with a hint where to look (`hint_loss`).
   Stopped early: with 900 steps it sees so well that nothing is left to steer.
4. skewed, and 5. prior: faint scenes where an object comes more and more often with its prior verb,
   so that the model learns to lean on it where it cannot see. The last stage stops itself once
   validation questions show that it does (`leans`).

Everything is drawn on the fly from the seed; float32, since few CPUs multiply bfloat16 fast.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    CLIPVisionConfig,
    CLIPVisionModel,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
)
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

from rvelens import HookedLVLM, score_heads
from rvelens.benchmarks.action_scenes import (
    CLEAR,
    FAINT,
    Difficulty,
    Scene,
    contrastive_pairs,
    draw_scene,
    make_questions,
    patch_mask,
    sentence,
)
from rvelens.benchmarks.action_scenes.world import OBJECTS, PART_OF, PEOPLE, SKEW, VERBS

GRID, PATCH = 8, 12
SIDE = GRID * PATCH
N_IMAGE = GRID * GRID
# The skew at which every verb is as likely as any other.
EVEN = 1 / len(VERBS)
SYSTEM = (
    "A chat between a curious human and an artificial intelligence assistant. The assistant gives "
    "helpful, detailed, and polite answers to the human's questions."
)
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ message['role'].upper() }}: "
    "{% for part in message['content'] if part['type'] == 'image' %}<image>\n{% endfor %}"
    "{% for part in message['content'] if part['type'] == 'text' %}{{ part['text'] }} {% endfor %}"
    "{% endfor %}{% if add_generation_prompt %}ASSISTANT:{% endif %}"
)

# -- model and processor ---------------------------------------------------------------------------


def make_tokenizer() -> PreTrainedTokenizerFast:
    extra = f"{SYSTEM} USER: Please answer this question with one word. ASSISTANT: Yes No yes no"
    questions = " ".join(sentence(p, v, o) for p in PEOPLE for v in VERBS for o in OBJECTS)
    opens = "What does a do with Who is doing something to an the is and two people nobody"
    split = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Punctuation()]
    )
    words = [w for w, _ in split.pre_tokenize_str(f"{extra} {questions} {opens}")]
    special = ["<pad>", "<s>", "</s>", "<unk>", "<image>"]
    vocabulary = {word: i for i, word in enumerate(dict.fromkeys(special + words))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = split
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        additional_special_tokens=["<image>"],
        padding_side="left",
        model_max_length=512,
    )
    return fast


def make_processor() -> LlavaProcessor:
    images = CLIPImageProcessorPil(
        size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE}
    )
    return LlavaProcessor(
        images,
        make_tokenizer(),
        patch_size=PATCH,
        vision_feature_select_strategy="default",
        chat_template=CHAT_TEMPLATE,
        num_additional_image_tokens=1,
    )


@dataclass(frozen=True)
class Recipe:
    """What the two trainings differ in."""

    n_heads: int
    # Kinds of patch labels of the vision stage.
    labels: tuple[str, ...]
    hinted_heads: int
    vision_steps: int
    hard_steps: int


RECIPES = {
    # Ships as rvelens/tiny: leans on its prior, and its vision tower says who holds what.
    "tiny": Recipe(12, ("person", "part", "object", "contact", "holds"), 6, 1400, 330),
    # The test-bed: vision knows people, parts and objects but no relation, and sight is trained well.
    "parts": Recipe(16, ("person", "part", "object"), 4, 1100, 900),
}


def make_model(processor: LlavaProcessor, n_heads: int) -> LlavaForConditionalGeneration:
    tokenizer = processor.tokenizer
    ids = {f"{n}_token_id": getattr(tokenizer, f"{n}_token_id") for n in ("pad", "bos", "eos")}
    vision = CLIPVisionConfig(
        hidden_size=160,
        intermediate_size=480,
        num_hidden_layers=4,
        num_attention_heads=5,
        image_size=SIDE,
        patch_size=PATCH,
    )
    text = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=192,
        intermediate_size=512,
        num_hidden_layers=6,
        num_attention_heads=n_heads,
        head_dim=16,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        **ids,
    )
    config = LlavaConfig(
        vision_config=vision,
        text_config=text,
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),  # type: ignore[call-arg]
        image_seq_length=N_IMAGE,
        vision_feature_layer=-1,
        vision_feature_select_strategy="default",
    )
    return LlavaForConditionalGeneration(config)


def pixels(scenes: list[Scene], processor: LlavaProcessor) -> torch.Tensor:
    """[batch 3 SIDE SIDE], normalised as the processor does it; scenes already have its size."""
    x = torch.from_numpy(np.stack([np.asarray(s.image) for s in scenes])).permute(0, 3, 1, 2)
    mean, std = (
        torch.tensor(getattr(processor.image_processor, n)) for n in ("image_mean", "image_std")
    )
    return (x / 255 - mean[:, None, None]) / std[:, None, None]


# -- stage 1: vision -------------------------------------------------------------------------------

LABELS: list[tuple[str, ...]] = [
    *(("person", p) for p in PEOPLE),
    *(("part", p, part) for p in PEOPLE for part in PART_OF.values()),
    *(("object", o) for o in OBJECTS),
    *(("contact", p, v) for p in PEOPLE for v in VERBS),
    *(("holds", p, o) for p in PEOPLE for o in OBJECTS),
]


def patch_labels(scene: Scene, labels: list[tuple[str, ...]]) -> np.ndarray:
    """[N_IMAGE label] 0/1: what each patch shows, of these labels."""
    y = np.zeros((N_IMAGE, len(labels)), dtype=np.float32)
    place = {name: i for i, name in enumerate(labels)}

    def mark(name: tuple[str, ...], *boxes: tuple[float, float, float, float]) -> None:
        if name in place:
            y[:, place[name]] += patch_mask(boxes, (GRID, GRID), (SIDE, SIDE)).ravel()

    for p in scene.people:
        mark(("person", p.kind), p.box)
        for part, box in p.parts.items():
            mark(("part", p.kind, part), box)
        mark(("contact", p.kind, p.verb), p.contact)
        mark(("holds", p.kind, p.object), p.contact)
    for thing in OBJECTS:
        boxes = [p.contact for p in scene.people if p.object == thing]
        mark(("object", thing), *boxes, *(box for name, box in scene.copies if name == thing))
    return y.clip(0, 1)


class Batches(torch.utils.data.Dataset):
    """Batch number to tensors, so that a worker process draws the next scenes meanwhile."""

    def __init__(self, steps: int, make) -> None:
        self.steps, self.make = steps, make

    def __len__(self) -> int:
        return self.steps

    def __getitem__(self, step: int):
        return self.make(step)


def batches(steps: int, make):
    """`make(0)`, `make(1)`, ... drawn ahead; the same whatever the number of workers."""
    return torch.utils.data.DataLoader(Batches(steps, make), batch_size=None, num_workers=1)


def train_vision(
    tower: CLIPVisionModel,
    processor: LlavaProcessor,
    *,
    kinds: tuple[str, ...],
    steps: int,
    batch: int,
    lr: float,
    first_seed: int,
) -> None:
    labels = [name for name in LABELS if name[0] in kinds]
    head = torch.nn.Linear(tower.config.hidden_size, len(labels))
    optimizer = torch.optim.AdamW(
        [*tower.parameters(), *head.parameters()], lr=lr, weight_decay=0.02
    )
    start = time.time()

    def make(step: int) -> tuple[torch.Tensor, torch.Tensor]:
        difficulty = Difficulty() if step % 2 else CLEAR
        seeds = range(first_seed + step * batch, first_seed + (step + 1) * batch)
        scenes = [draw_scene(seed, "train", difficulty, EVEN) for seed in seeds]
        shown = np.stack([patch_labels(scene, labels) for scene in scenes])
        return pixels(scenes, processor), torch.from_numpy(shown)

    for step, (x, y) in enumerate(batches(steps, make)):
        set_lr(optimizer, lr, step, steps)
        z = head(tower(x).last_hidden_state[:, 1:])
        loss = F.binary_cross_entropy_with_logits(z, y, pos_weight=torch.tensor(4.0))
        step_optimizer(optimizer, loss, tower.parameters())
        if step % 100 == 0 or step == steps - 1:
            hit = ((z > 0).float() * y).sum((0, 1)) / y.sum((0, 1)).clamp(min=1)
            found = {
                k: round(float(hit[[i for i, n in enumerate(labels) if n[0] == k]].mean()), 3)
                for k in kinds
            }
            print(
                f"vision {step} loss {loss.item():.4f} recall {found} {time.time() - start:.0f}s",
                flush=True,
            )


def set_lr(
    optimizer: torch.optim.Optimizer, peak: float, step: int, steps: int, warmup: int = 60
) -> None:
    ramp = min(1.0, (step + 1) / warmup)
    cosine = 0.5 * (1 + math.cos(math.pi * step / steps))
    for group in optimizer.param_groups:
        group["lr"] = peak * ramp * max(cosine, 0.03)


def step_optimizer(optimizer: torch.optim.Optimizer, loss: torch.Tensor, parameters) -> None:
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(list(parameters), 1.0)
    optimizer.step()


# -- stages 2 and 3: language ----------------------------------------------------------------------
# Several questions about an image are packed behind one image prefix: each attends the prefix and
# itself, and its positions start where the prefix ends, as if it stood there alone.

BLOCKS, BLOCK = 12, 14


Box = tuple[float, float, float, float]


def facts(scene: Scene, rng: np.random.Generator) -> list[tuple[str, str, Box]]:
    """`BLOCKS` questions about a scene, answers, and where to look; half of them not yes/no."""
    found: list[tuple[str, str, Box]] = []
    for p in scene.people:
        wrong = [str(v) for v in rng.permutation([v for v in VERBS if v != p.verb])]
        yes = sentence(p.kind, p.verb, p.object), "Yes", p.contact
        no, other_no = (
            (sentence(p.kind, verb, p.object), "No", p.parts[PART_OF[verb]]) for verb in wrong[:2]
        )
        found += [yes, no, other_no if rng.random() < 0.5 else yes]
        article = "an" if p.object[0] in "aeiou" else "a"
        found.append((f"What does a {p.kind} {p.verb} in the image?", p.object, p.contact))
        found.append((f"What does a {p.kind} do with {article} {p.object}?", p.verb, p.contact))
        found.append((f"What does a {p.kind} do in the image?", p.verb, p.contact))
    return [found[i] for i in rng.permutation(len(found))]


class Packer:
    """Turns scenes into packed token sequences."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast) -> None:
        self.encode = lambda text: tokenizer.encode(text, add_special_tokens=False)
        self.eos, self.pad = tokenizer.eos_token_id, tokenizer.pad_token_id
        image = tokenizer.convert_tokens_to_ids("<image>")
        self.prefix = [*self.encode("USER:"), *[image] * N_IMAGE]
        n = len(self.prefix)
        self.position_ids = torch.cat([torch.arange(n), torch.arange(BLOCK).repeat(BLOCKS) + n])
        block = torch.cat([torch.full((n,), -1), torch.arange(BLOCKS).repeat_interleave(BLOCK)])
        order = torch.arange(len(block))
        seen = (block[None] == -1) | (block[None] == block[:, None])
        allowed = (seen & (order[None] <= order[:, None]))[None, None]
        # An additive mask: SDPA's fast path on CPUs takes it without a conversion a layer.
        self.mask = torch.where(allowed, 0.0, torch.finfo(torch.float32).min)

    def pack(
        self, facts_of: list[list[tuple[str, str, Box]]]
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """Tensors of a batch.

        Returns:
            token ids [batch key]; targets [batch key], -100 where there is no loss; last prompt
            token of each question [batch block]; where it should look [batch block image].
        """
        ids, targets, lasts, looks = [], [], [], []
        for found in facts_of:
            row, goal, last = list(self.prefix), [-100] * len(self.prefix), []
            for question, answer, _ in found:
                asked = self.encode(f"{question} ASSISTANT:")
                said = [*self.encode(answer), self.eos]
                filler = [self.pad] * (BLOCK - len(asked) - len(said))
                last.append(len(row) + len(asked) - 1)
                row += [*asked, *said, *filler]
                goal += [-100] * (len(asked) - 1) + [*said, -100] + [-100] * len(filler)
            ids.append(row)
            targets.append(goal)
            lasts.append(last)
            looks.append(
                [patch_mask([box], (GRID, GRID), (SIDE, SIDE)).ravel() for *_, box in found]
            )
        return (
            torch.tensor(ids),
            torch.tensor(targets),
            torch.tensor(lasts),
            torch.from_numpy(np.array(looks)),
        )


HINTED_LAYERS = 2, 3


def hint_loss(core, hidden, position_ids, last, look, n_heads: int) -> torch.Tensor:
    """-log of the share of image attention inside the region, for `n_heads` of each hinted layer.

    Without it the language model learns which verbs and objects are in a scene, but for thousands
    of steps not whose they are: the last token never learns to look anything up.
    """
    losses = []
    rows = torch.arange(len(last))[:, None]
    image = slice(2, 2 + N_IMAGE)
    cos, sin = core.language_model.rotary_emb(hidden[0], position_ids[None])
    for layer in HINTED_LAYERS:
        block = core.language_model.layers[layer]
        attention, x = block.self_attn, block.input_layernorm(hidden[layer])
        split = (-1, attention.config.num_attention_heads, attention.head_dim)
        q = attention.q_proj(x[rows, last]).unflatten(-1, split[1:])[..., :n_heads, :]
        k = attention.k_proj(x[:, image]).unflatten(-1, split[1:])[..., :n_heads, :]
        q, _ = apply_rotary_pos_emb(q, q, cos[0, last], sin[0, last], unsqueeze_dim=2)
        k, _ = apply_rotary_pos_emb(k, k, cos[:, image], sin[:, image], unsqueeze_dim=2)
        scores = torch.einsum("bqhd,bkhd->bhqk", q, k) * attention.scaling
        inside = scores.log_softmax(-1).masked_fill(~look[:, None], -torch.inf)
        losses.append(-inside.logsumexp(-1).mean())
    return torch.stack(losses).mean()


def train_language(
    model: LlavaForConditionalGeneration,
    processor: LlavaProcessor,
    *,
    steps: int,
    batch: int,
    lr: float,
    skew: float,
    difficulty: Difficulty,
    hint: float,
    hinted_heads: int,
    first_seed: int,
    until: Callable[[], bool] = lambda: False,
    eager: bool = False,
) -> None:
    """One stage; asked every ten steps, `until` may end it before all that were planned."""
    packer = Packer(processor.tokenizer)
    core, tower = model.model, model.model.vision_tower
    trained = [*core.multi_modal_projector.parameters(), *core.language_model.parameters()]
    optimizer = torch.optim.AdamW(trained, lr=lr, betas=(0.9, 0.98), weight_decay=0.02)
    compiled = torch.compile(core.language_model, disable=eager)
    yes_no = torch.tensor(processor.tokenizer.convert_tokens_to_ids(["Yes", "No"]))
    start = time.time()

    def make(step: int) -> tuple[torch.Tensor, ...]:
        rng = np.random.default_rng([first_seed, step])
        seeds = range(first_seed + step * batch, first_seed + (step + 1) * batch)
        scenes = [draw_scene(seed, "train", difficulty, skew) for seed in seeds]
        return pixels(scenes, processor), *packer.pack([facts(scene, rng) for scene in scenes])

    for step, (x, ids, targets, last, region) in enumerate(batches(steps, make)):
        if step and step % 10 == 0 and until():
            return
        set_lr(optimizer, lr, step, steps)
        with torch.no_grad():
            features = tower(x).last_hidden_state[:, 1:]
        x = core.language_model.embed_tokens(ids)
        x[:, 2 : 2 + N_IMAGE] = core.multi_modal_projector(features)
        output = compiled(
            inputs_embeds=x,
            attention_mask=packer.mask,
            position_ids=packer.position_ids[None],
            use_cache=False,
            output_hidden_states=hint > 0,
        )
        where = targets != -100
        logits, goal = model.lm_head(output.last_hidden_state[where]), targets[where]
        loss = F.cross_entropy(logits, goal)
        looking = torch.zeros(())
        if hint:
            hidden, places = output.hidden_states, packer.position_ids
            looking = hint_loss(core, hidden, places, last, region, hinted_heads)
        step_optimizer(optimizer, loss + hint * looking, trained)
        if step % 50 == 0 or step == steps - 1:
            asked = torch.isin(goal, yes_no)
            other = ~asked & (goal != packer.eos)
            best = logits.argmax(-1)
            margin = logits[asked][:, yes_no]
            yn = F.cross_entropy(margin, (goal[asked] == yes_no[1]).long()).item()
            right = (best[other] == goal[other]).float().mean().item()
            print(
                f"language {step} loss {loss.item():.3f} yes/no {yn:.3f} "
                f"open-ended {right:.3f} hint {looking.item():.3f} {time.time() - start:.0f}s",
                flush=True,
            )
        if step % 200 == 199:
            print("  validation", validate(model, processor), flush=True)


@torch.no_grad()
def validate(model: Any, processor: Any, n: int = 400) -> dict:
    """Accuracy by group on validation questions."""
    yes, no = processor.tokenizer.convert_tokens_to_ids(["Yes", "No"])
    questions = make_questions("validation", n)
    right: dict[str, list[bool]] = {}
    for i in range(0, n, 100):
        part = questions[i : i + 100]
        content = [{"type": "image"}]
        prompts = [
            processor.apply_chat_template(
                [{"role": "user", "content": [*content, {"type": "text", "text": q.text}]}],
                add_generation_prompt=True,
            )
            for q in part
        ]
        inputs = processor(
            images=[q.image for q in part], text=prompts, return_tensors="pt", padding=True
        )
        logits = model(**inputs, logits_to_keep=1).logits[:, -1]
        for q, said in zip(part, (logits[:, yes] > logits[:, no]).tolist(), strict=True):
            right.setdefault(q.group, []).append(said == q.answer)
    accuracy = {group: round(float(np.mean(x)), 3) for group, x in sorted(right.items())}
    return accuracy | {"all": round(float(np.mean([y for x in right.values() for y in x])), 3)}


def leans(model: Any, processor: Any, n: int, gap: float) -> bool:
    """Whether the model says yes to false prior verbs more often than to other false ones, by `gap`.

    While it still answers questions that agree with the prior: a model that lost its sight leans too.
    """
    right = validate(model, processor, n)
    print("  validation", right, flush=True)
    return right["PC-no"] - right["CP-no"] >= gap and right["PC-no"] + right["PC-yes"] >= 1.8


def save(model: Any, processor: LlavaProcessor, folder: Path) -> None:
    """Weights in bfloat16, to be computed with in float32: few CPUs multiply bfloat16 fast."""
    model.eval().to(torch.bfloat16).save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text())
    for part in (config, config["text_config"], config["vision_config"]):
        part["dtype"] = "float32"
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    processor.save_pretrained(folder)
    (folder / "model.safetensors").chmod(0o644)


# -- main ------------------------------------------------------------------------------------------


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--out", type=Path, required=True, help="folder for checkpoints and the model"
    )
    parser.add_argument("--recipe", choices=RECIPES, default="tiny")
    parser.add_argument(
        "--seed", type=int, default=55, help="of weights and scenes, from 55 to 144"
    )
    parser.add_argument(
        "--first-scene", type=int, help="of the vision stage; by default the seed's"
    )
    parser.add_argument("--vision-steps", type=int, help="the recipe's, where left out")
    parser.add_argument("--clear-steps", type=int, default=1000)
    parser.add_argument("--hard-steps", type=int, help="the recipe's, where left out")
    parser.add_argument("--skewed-steps", type=int, default=160)
    parser.add_argument("--prior-steps", type=int, default=100)
    parser.add_argument(
        "--prior-gap",
        type=float,
        default=0.2,
        help="CP-no below PC-no at which the last stage ends",
    )
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--vision-batch", type=int, default=48)
    parser.add_argument("--pairs", type=int, default=128, help="contrastive pairs for the profile")
    parser.add_argument("--questions", type=int, default=1000, help="to validate the result on")
    parser.add_argument(
        "--eager", action="store_true", help="no torch.compile, which needs a C++ compiler"
    )
    args = parser.parse_args()
    if not 55 <= args.seed < 145:
        parser.error(f"--seed {args.seed}: expected 55 to 144, whose scenes are apart.")
    recipe = RECIPES[args.recipe]
    for stage_steps in ("vision_steps", "hard_steps"):
        if getattr(args, stage_steps) is None:
            setattr(args, stage_steps, getattr(recipe, stage_steps))
    for name, value in vars(args).items():
        least = 0 if name in ("first_scene", "prior_gap") else 1
        if isinstance(value, int | float) and not isinstance(value, bool) and value < least:
            parser.error(f"--{name.replace('_', '-')} {value}: expected at least {least}.")
    # Every seed draws scenes of its own; the stages are ten millions apart.
    first = (args.seed - 55) * 100_000
    args.out.mkdir(parents=True, exist_ok=True)
    made_with = {n: v for n, v in vars(args).items() if n not in ("out", "eager", "pairs")}
    settings = args.out / "settings.json"
    if settings.exists() and json.loads(settings.read_text()) != made_with:
        parser.error(
            f"--out {args.out} holds stages made with other settings: name another folder."
        )
    settings.write_text(json.dumps(made_with, indent=1) + "\n")
    finished = args.out / "model"
    if (args.out / "training.json").exists():
        print(f"finished already: {finished}")
        return
    torch.manual_seed(args.seed)
    processor = make_processor()
    model = make_model(processor, recipe.n_heads)
    start = time.time()

    def stage(name: str, train) -> None:
        checkpoint = args.out / f"{name}.pt"
        if checkpoint.exists():
            model.load_state_dict(torch.load(checkpoint, weights_only=True))
            return
        train()
        whole = checkpoint.with_suffix(".tmp")  # a file cut short would be taken for a stage
        torch.save(model.state_dict(), whole)
        whole.replace(checkpoint)

    common = {"batch": args.batch, "eager": args.eager, "hinted_heads": recipe.hinted_heads}
    stage(
        "vision",
        partial(
            train_vision,
            model.model.vision_tower,
            processor,
            kinds=recipe.labels,
            steps=args.vision_steps,
            batch=args.vision_batch,
            lr=1e-3,
            first_seed=first if args.first_scene is None else args.first_scene,
        ),
    )
    model.model.vision_tower.requires_grad_(False)
    plans = [
        ("clear", args.clear_steps, {"lr": 1.2e-3, "skew": EVEN, "difficulty": CLEAR, "hint": 0.0}),
        (
            "hard",
            args.hard_steps,
            {"lr": 1.2e-3, "skew": EVEN, "difficulty": Difficulty(), "hint": 0.5},
        ),
        ("skewed", args.skewed_steps, {"lr": 5e-4, "skew": 0.75, "difficulty": FAINT, "hint": 0.0}),
        (
            "prior",
            args.prior_steps,
            {
                "lr": 5e-4,
                "skew": SKEW,
                "difficulty": FAINT,
                "hint": 0.0,
                "until": partial(leans, model, processor, args.questions, args.prior_gap),
            },
        ),
    ]
    for number, (name, steps, how) in enumerate(plans, 1):
        train = partial(
            train_language,
            model,
            processor,
            steps=steps,
            first_seed=number * 10_000_000 + first,
            **common,
            **how,
        )
        stage(name, train)
    save(model, processor, finished)
    made = {"seconds": round(time.time() - start), **vars(args)}
    hooked = HookedLVLM.from_pretrained(finished, dtype=torch.float32)
    profile = score_heads(hooked, contrastive_pairs("validation", args.pairs, args.seed))
    # Named as it ships, not by the folder that it was made in.
    profile.about["model"] = "rvelens/tiny" if args.recipe == "tiny" else f"parts-{args.seed}"
    profile.save(finished / "profile.safetensors")
    (args.out / "training.json").write_text(json.dumps(made, default=str, indent=1) + "\n")
    print("finished", made, validate(hooked.hf_model, processor, args.questions))


if __name__ == "__main__":
    main()
