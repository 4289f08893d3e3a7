"""What the tab Runs shows as Python that computes it again."""

from __future__ import annotations

from rvelens.app.examples import EXAMPLE_METHODS, N_QUESTIONS
from rvelens.app.models import SHIPPED, Models
from rvelens.app.programs import arguments, join_program
from rvelens.evaluate.flips import ALL, DIRECTIONS, FlipFilter
from rvelens.evaluate.opened import OpenedRun, strict_scores
from rvelens.plots.yes_ratio import with_yes_ratio


def python_of_run(
    run: OpenedRun, criteria: FlipFilter | None, models: Models, *, is_example: bool
) -> str:
    """A program that prints the tables and the flipped answers on the page, and draws its figure.

    Args:
        run: what is open.
        criteria: the flips on the page; None where there are none.
        models: how the example's model was loaded.
        is_example: make the run first: the example's own folder goes with the server.
    """
    data = () if run.data is None else (str(run.data.absolute()),)
    opening = arguments("run") if is_example else arguments(str(run.folder.absolute()), *data)
    return join_program(
        [
            *(_example_lines(models) if is_example else ()),
            f"run = open_run({opening})",
            "print(to_markdown(run.report))",
            *(() if criteria is None else _flip_lines(run, criteria)),
        ]
    )


def _example_lines(models: Models) -> list[str]:
    """What makes the example in the folder that a program is run in."""
    return [
        f"model = load_model({arguments(SHIPPED, **models.options())})",
        f"profile = find_profile({arguments(None, SHIPPED)})",
        f"methods = [make_method(name, model, profile) for name in {EXAMPLE_METHODS}]",
        f'benchmark = load_benchmark("action-scenes", n={N_QUESTIONS})',
        f'evaluate(model, [benchmark], methods, "run", batch_size={N_QUESTIONS})',
    ]


def _flip_lines(run: OpenedRun, criteria: FlipFilter) -> list[str]:
    """Yes-ratio against accuracy, and the flips that fit."""
    name, method = criteria.benchmark, criteria.method
    drawing = [
        f"scores, share_of_yes = strict_scores(run, {name!r})",
        f'save_figure(yes_ratio_points(scores, share_of_yes, title={name!r}), "run.pdf")',
    ]
    drawing = drawing if has_yes_ratio(run, name) else []
    if not method:
        return drawing
    defaults = {"direction": DIRECTIONS[0], "group": ALL, "text": ""}
    chosen = {key: getattr(criteria, key) for key in defaults}
    filters = {key: value for key, value in chosen.items() if value != defaults[key]}
    return [
        *drawing,
        f"criteria = FlipFilter({arguments(name, method, **filters)})",
        f"cases = matching(flips(run, {arguments(name, method)}), criteria)",
        "for case in cases:",
        '    print(case["direction"], case["id"], case["question"])',
        f'    print("  ", {run.methods[0]!r}, case["before"]["answer"])',
        f'    print("  ", {method!r}, case["after"]["answer"])',
    ]


def has_yes_ratio(run: OpenedRun, benchmark: str) -> bool:
    """Whether yes-ratio against accuracy can be drawn."""
    return bool(with_yes_ratio(strict_scores(run, benchmark)[0]))
