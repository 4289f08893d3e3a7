"""The tab Runs: a folder of `rvelens eval`, its figures, and the answers that a method flipped."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import gradio as gr

from rvelens.app.asking import record_attention, tokens_by_layer
from rvelens.app.chart import chart
from rvelens.app.examples import example_folder, example_run
from rvelens.app.markup import note, report_tables, swatches
from rvelens.app.models import Choice, Loaded, Models
from rvelens.app.recent import (
    EXAMPLE,
    chosen_paths,
    nearby_runs,
    recent_html,
    remember,
    remembered_by_browser,
)
from rvelens.app.runs_tools import runs_tools
from rvelens.app.shared import IN_TURN, PATH, SKIP, catch, clickable, script
from rvelens.benchmarks import Item
from rvelens.evaluate.flips import ALL, DIRECTIONS, FlipFilter, flips, groups, matching
from rvelens.evaluate.opened import OpenedRun, open_run, strict_scores
from rvelens.files.atomic import one_line
from rvelens.interventions.methods import make_method
from rvelens.studies.cases.page import case
from rvelens.studies.cases.pictures import Pictures, colour, draw_cases, small, to_data_uri

PAGE = 6


def build_runs_tab(
    models: Models, model: gr.State, page: gr.Blocks, tabs: gr.HTML, examples: Path
) -> None:
    """The tab's fields and what they do; it opens with an example, made in the folder `examples`."""
    run, shown, recent = gr.State(None), gr.State(PAGE), remembered_by_browser("runs")
    offered = clickable("recent", recent_html([]), elem_id="run-recent")
    with gr.Row(equal_height=True):
        folder = gr.Textbox(
            EXAMPLE,
            label="Folder of the run (--out of rvelens eval)",
            elem_id="run-folder",
            scale=3,
            **PATH,
        )
        data = gr.Textbox(
            label="Folder of the benchmarks' files, for pictures",
            placeholder="not needed for action scenes",
            scale=3,
            **PATH,
        )
        button = gr.Button("Open", variant="primary", elem_id="run-open", scale=1, min_width=100)
    problem = gr.HTML(elem_id="run-problem", elem_classes="rv-problem")
    with gr.Column(visible=False) as opened:
        # Of the open run's own: what shows it never takes the message of a run that did not open.
        failure = gr.HTML(elem_classes="rv-problem")
        benchmark = gr.Dropdown([], label="Benchmark")
        with gr.Row():
            with gr.Column(scale=2, min_width=300):
                plot = gr.HTML(elem_id="run-chart")
            with gr.Column(scale=5, min_width=300):
                tables = gr.HTML(elem_id="run-tables")
        tools = gr.HTML(elem_id="run-tools", js_on_load=script("tools.js"))
        gr.HTML("<h2>Flipped answers</h2>")
        with gr.Row():
            method = gr.Dropdown([], label="Method", min_width=130)
            direction = gr.Radio(DIRECTIONS, value="both", label="Direction", min_width=220)
            group = gr.Dropdown([ALL], value=ALL, label="Group", min_width=130)
            search = gr.Textbox(
                label="Search", placeholder="in questions and answers", elem_id="run-search", **PATH
            )
        cases = gr.HTML(elem_id="run-cases")
        more = gr.Button("Show more", size="sm", visible=False, elem_id="run-more")
        filters = [method, direction, group, search]
        runs_tools(models, run, benchmark, filters, tools, example_folder(examples))

    def open_(path: str, files: str, last: Any) -> Sequence[Any]:
        is_example = path.strip() == EXAMPLE
        of_run = open_run(str(example_run(models, examples)) if is_example else path, files)
        paths = remember(last, path, files)
        names, others = of_run.benchmarks, of_run.methods[1:]
        first = names[0] if names else None
        return (
            of_run, gr.Column(visible=True), gr.Dropdown(names, value=first),
            gr.Dropdown(others, value=others[0] if others else None),
            paths, recent_html(paths, nearby_runs()),
        )  # fmt: skip

    def first_look(
        path: str, files: str, last: Any, of_run: OpenedRun | None, event: gr.EventData
    ) -> Sequence[Any]:
        """The example, where a person comes to the tab and nothing is open."""
        if event.value != "runs" or of_run is not None or path.strip() != EXAMPLE:
            return (SKIP,) * 6
        return open_(path, files, last)

    def take(last: Any, event: gr.EventData) -> Sequence[Any]:
        path, files = chosen_paths(event.value)
        return (path, files, *open_(path, files, last))

    def figures(of_run: OpenedRun | None, name: str | None) -> tuple[str, str]:
        if of_run is None or name is None:
            return "", note("This run has no yes/no questions: `rvelens judge` scores its answers.")
        scores, share_of_yes = strict_scores(of_run, name)
        about = note("Accuracy over yes-ratio by the strict rule, with 95% intervals.")
        return chart(scores, share_of_yes) + about, report_tables(of_run.report, name)

    def search_(
        n: int, chosen: Choice, of_run: OpenedRun | None, name: str | None, by: str | None, change: str,
        part: str, text: str,
    ) -> Sequence[Any]:  # fmt: skip
        if of_run is None or name is None or by is None:
            return note("One method alone flips nothing."), gr.Button(visible=False), gr.skip()
        all_flips = flips(of_run, name, by)
        names = groups(all_flips)
        part = part if part in names else ALL
        fit = matching(all_flips, FlipFilter(name, by, change, part, text))
        with models.lock:
            html = cases_html(models, chosen, of_run, name, by, fit[:n])
        count = (
            f"{len(fit)} of {len(all_flips)} flipped answers fit; {min(n, len(fit))} are shown. "
        )
        right = f"Gained: wrong under {of_run.methods[0]}, right under {by}; by the strict rule."
        return (
            note(count + right) + html,
            gr.Button(visible=len(fit) > n),
            gr.Dropdown(names, value=part),
        )

    def from_start(*arguments: Any) -> Sequence[Any]:
        return PAGE, *search_(PAGE, *arguments)

    def further(n: int, *arguments: Any) -> Sequence[Any]:
        return n + PAGE, *search_(n + PAGE, *arguments)

    inputs = [model, run, benchmark, *filters]
    listed = [shown, cases, more, group, failure]
    none = (PAGE, "", gr.update(visible=False), SKIP)
    # Updates, not components: these would be built here, at the foot of the page.
    empty = gr.update(choices=[], value=None)
    closed = (None, gr.update(visible=False), empty, empty, SKIP, SKIP)
    everything = [run, opened, benchmark, method, recent, offered, problem]
    gr.on(
        [button.click, folder.submit],
        catch(open_, closed), [folder, data, recent], everything, **IN_TURN,
    )  # fmt: skip
    tabs.select(catch(first_look, closed), [folder, data, recent, run], everything, **IN_TURN)
    offered.select(
        catch(take, (SKIP, SKIP, *closed)), recent, [folder, data, *everything], **IN_TURN
    )
    page.load(lambda last: recent_html(last, nearby_runs()), recent, offered)
    gr.on(
        [run.change, benchmark.input],
        catch(figures, ("", "")), [run, benchmark], [plot, tables, failure],
    ).then(catch(from_start, none), inputs, listed, **IN_TURN)  # fmt: skip
    gr.on(
        [method.input, direction.input, group.input, search.submit, search.blur, model.change],
        catch(from_start, none), inputs, listed, **IN_TURN,
    )  # fmt: skip
    more.click(catch(further, none), [shown, *inputs], listed, **IN_TURN)


def cases_html(
    models: Models,
    choice: Choice,
    run: OpenedRun,
    benchmark: str,
    method: str,
    flipped: Sequence[Mapping[str, Any]],
) -> str:
    """Flips as cards, with the tokens that rve enhanced, or the reason why they are not marked."""
    data = {"before": run.methods[0], "after": method}
    items = run.items[benchmark]
    loaded, reason = _of_run(models, choice, run) if method == "rve" else (None, "")
    cards, key = [], note(reason) if reason and flipped else ""
    for row in flipped:
        item = items[row["id"]]
        pictures = _plain(item) if loaded is None else _marked(loaded, run, benchmark, item)
        if pictures.marked:
            key = _key(pictures)
        cards.append(case(data, row, 0, benchmark, pictures))
    return f'{key}<div class="rv-cases">{"".join(cards)}</div>'


def _of_run(models: Models, choice: Choice, run: OpenedRun) -> tuple[Loaded | None, str]:
    """The run's model with the run's profile; else None and the reason, in a sentence."""
    name, digest = run.report["model"]["name"], run.report["methods"]["rve"].get("profile")
    loaded = models.loaded(choice)
    if loaded.model.name != name:
        return None, (
            f"No tokens are marked: the run is of the model {name} and this window works with "
            f"{loaded.model.name}. Load {name} at the top."
        )
    # The window may have measured another profile since; the model's own is still known.
    for candidate in (loaded, models.get(choice.name)):
        if candidate.profile is not None and candidate.profile.digest() == digest:
            return candidate, ""
    return None, (
        f"No tokens are marked: the run's head profile (digest {digest}) is not the one of this window "
        f"({choice.source}). Load the run's profile at the top."
    )


def _key(pictures: Pictures) -> str:
    """What the colours on the pictures mean."""
    n = len(pictures.layers)
    colours = [colour(count, n) for count in range(1, n + 1)]
    return swatches(colours, f"tokens marked in 1 to {n} layers ({', '.join(pictures.layers)})")


def _plain(item: Item) -> Pictures:
    try:
        return Pictures(to_data_uri(small(item.load())), {}, {}, "")
    except ValueError as error:
        return Pictures(None, {}, {}, one_line(error))


def _marked(loaded: Loaded, run: OpenedRun, benchmark: str, item: Item) -> Pictures:
    """The picture with the tokens that the run's own setting of rve enhanced for the first token."""
    settings = dict(run.report["methods"]["rve"])
    settings.pop("profile", None)  # `_of_run` compared it
    decoding = run.report["decoding"][benchmark]
    try:
        image = item.load()
    except ValueError:
        return _plain(item)
    method = make_method("rve", loaded.model, loaded.profile, **settings)
    text = f"{item.text} {decoding['suffix']}".strip()
    _, masks = record_attention(loaded.model, method, [image], [text], decoding["prompt"])
    return draw_cases(loaded.model, item, tokens_by_layer(masks))
