"""Tabs and folds that are on the page from the start, and hidden by style alone.

Gradio mounts what stands in its own tabs and closed accordions when a person first opens them, and
puts their initial values in once more a moment later: what was typed in between is lost.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import gradio as gr

from rvelens.app.markup import escape

_TABS = """
const tabs = [...element.querySelectorAll('[role=tab]')];
const choose = one => tabs.forEach(tab => {
  tab.setAttribute('aria-selected', tab === one);
  tab.tabIndex = tab === one ? 0 : -1;
});
const open = one => {
  choose(one);
  const name = one.id.slice('tab-'.length);
  window.rvAddress({tab: name});
  trigger('select', {value: name});
};
const named = () => tabs.filter(tab => {
  const panel = document.getElementById(tab.getAttribute('aria-controls'));
  panel?.setAttribute('role', 'tabpanel');
  panel?.setAttribute('aria-labelledby', tab.id);
  return !panel;
}).length && requestAnimationFrame(named);
named();
element.addEventListener('click', event => {
  const hit = event.target.closest('[role=tab]');
  if (hit) open(hit);
});
element.addEventListener('keydown', event => {
  const at = tabs.indexOf(event.target), last = tabs.length - 1;
  const right = at < last ? at + 1 : 0, left = at > 0 ? at - 1 : last;
  const to = {ArrowRight: right, ArrowLeft: left, Home: 0, End: last}[event.key];
  if (at < 0 || to === undefined) return;
  event.preventDefault();
  open(tabs[to]);
  tabs[to].focus();
});"""

_FOLD = """element.addEventListener('click', event => {
  const hit = event.target.closest('button');
  if (hit) hit.setAttribute('aria-expanded', hit.getAttribute('aria-expanded') !== 'true');
});"""


def tabs(names: list[str]) -> gr.HTML:
    """The row of tabs, the first one open; the panels must be its later siblings.

    Its event `select` has the name of the tab that a person opens.
    """
    buttons = [
        f'<button type="button" role="tab" id="tab-{name}" aria-controls="panel-{name}" '
        f'aria-selected="{str(n == 0).lower()}" tabindex="{-min(n, 1)}">{name.title()}</button>'
        for n, name in enumerate(names)
    ]
    return gr.HTML(
        f'<div role="tablist" aria-label="explorer">{"".join(buttons)}</div>',
        elem_classes="rv-tabs",
        js_on_load=_TABS,
    )


def panel(name: str) -> gr.Column:
    """What a tab shows."""
    return gr.Column(elem_id=f"panel-{name}", elem_classes="rv-panel")


@contextmanager
def folded(label: str) -> Iterator[None]:
    """Fields behind a button that opens and closes them, closed at first."""
    gr.HTML(
        f'<button type="button" aria-expanded="false">{escape(label)}</button>',
        elem_classes="rv-fold",
        js_on_load=_FOLD,
    )
    with gr.Column(elem_classes="rv-folded"):
        yield
