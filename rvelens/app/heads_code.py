"""What the tab Heads shows as Python that computes it again, and its map as a figure."""

from __future__ import annotations

from dataclasses import dataclass

from matplotlib.figure import Figure

from rvelens.app.address import hub_name
from rvelens.app.asking import MAX_NEW_TOKENS
from rvelens.app.heads import Heads, PairAttention, format_heads
from rvelens.app.models import Choice, Models
from rvelens.app.programs import image_line, join_program, model_lines
from rvelens.heads.profile import ARSProfile
from rvelens.plots import ars_heatmap

PROFILE, PAIR = "the profile", "this pair"


@dataclass(frozen=True)
class HeadsView:
    """What of the tab a program computes again.

    Attributes:
        pair: number of the drawn pair; None for a picture that was uploaded.
        question, contrastive: the texts of the pair.
        source: whose ARS the map shows, `PROFILE` or `PAIR`.
        shown: the head on show; {} for none.
        masked: heads that are left out; {} for none.
    """

    pair: int | None
    question: str
    contrastive: str
    source: str = PROFILE
    shown: Heads | None = None
    masked: Heads | None = None


def python_of_heads(view: HeadsView, models: Models, choice: Choice) -> str:
    """A program that draws the map, and prints attention of the head on show and answers without heads.

    An uploaded picture is read from a file whose name the reader puts in.
    """
    return join_program(
        [
            *model_lines(models, choice),
            image_line("contrastive_pairs", view.pair),
            f"texts = [{view.question!r}, {view.contrastive!r}]",
            *_map_lines(view, choice),
            *_attention_lines(view.shown or {}),
            *_answer_lines(view.masked or {}),
        ]
    )


def _map_lines(view: HeadsView, choice: Choice) -> list[str]:
    """The map on show; nothing where there is none."""
    if view.source == PAIR:
        scoring = ["pair_profile = score_heads(model, [ContrastivePair(image, *texts)])"]
        name, title = "pair_profile", '" / ".join(texts)'
    elif choice.profile is not None and choice.profile.mean is not None:
        scoring, name, title = [], "profile", repr(hub_name(choice.name))
    else:
        return []
    return [
        *scoring,
        f"print({name}.scores)",
        f'save_figure(ars_heatmap({name}, title={title}), "heads.pdf")',
    ]


def _attention_lines(shown: Heads) -> list[str]:
    """Where the head on show looks for both texts."""
    if not shown:
        return []
    layer, (number, *_) = next(iter(shown.items()))
    return [
        "traces = [model.trace(image, text, max_new_tokens=1) for text in texts]",
        f"attention = [trace.answers[0].attention[0, {layer}, {number}] for trace in traces]",
        "for text, values in zip(texts, attention):",
        f'    print("layer {layer}, head {number}:", text, values.sum())',
    ]


def _answer_lines(masked: Heads) -> list[str]:
    """Answers with all heads and without the chosen ones."""
    if not masked:
        return []
    return [
        f"heads = {dict(masked)!r}",
        "methods = {",
        '    "all heads": make_method("vanilla", model),',
        f'    "without {format_heads(masked)}": '
        'Method("masked", {}, tuple(head_mask_hooks(heads))),',
        "}",
        f"decoding = Decoding(max_new_tokens={MAX_NEW_TOKENS})",
        "answers = {",
        "    name: answer(model, method, [image] * 2, texts, decoding=decoding)",
        "    for name, method in methods.items()",
        "}",
        "for name, rows in answers.items():",
        "    print(name, rows)  # texts, and log-odds of yes over no",
    ]


def map_figure(choice: Choice, recorded: PairAttention | None, source: str) -> Figure:
    """The map on show as a figure.

    Raises:
        ValueError: no map is shown.
    """
    if source == PAIR and recorded is not None:
        title = " / ".join(recorded.texts)
        return ars_heatmap(ARSProfile.from_scores(recorded.scores.cpu()), title=title)
    if source == PAIR or choice.profile is None or choice.profile.mean is None:
        raise ValueError(
            "no head map is shown: expected a profile with scores or a pair; measure a profile, or "
            "look at the pair first."
        )
    return ars_heatmap(choice.profile, title=hub_name(choice.name))
