"""The look of the explorer: the colours of rvelens' figures on quiet paper, light and dark."""

from __future__ import annotations

from importlib import resources

import gradio as gr

_GREY = gr.themes.Color(
    name="paper", c50="#fafaf8", c100="#f4f4f1", c200="#e6e6e2", c300="#d2d2cd", c400="#a3a39d",
    c500="#767671", c600="#565652", c700="#3b3d3f", c800="#26282b", c900="#1c1e21", c950="#141618",
)  # fmt: skip
_BLUE = gr.themes.Color(
    name="control", c50="#eef5fb", c100="#d8e8f5", c200="#b3d1eb", c300="#84b5de", c400="#5497ce",
    c500="#2c7bbd", c600="#0b5fa5", c700="#0a5290", c800="#0b4375", c900="#0c3559", c950="#0a2740",
)  # fmt: skip
# Names, not files: nothing is fetched.
_FONT = (
    "system-ui",
    "-apple-system",
    "Segoe UI",
    "Roboto",
    "Helvetica Neue",
    "Arial",
    "sans-serif",
)
_MONO = ("ui-monospace", "SFMono-Regular", "Menlo", "Consolas", "monospace")


def theme() -> gr.themes.Base:
    """Colours, fonts and edges of Gradio's own parts."""
    base = gr.themes.Base(
        primary_hue=_BLUE,
        secondary_hue=_BLUE,
        neutral_hue=_GREY,
        radius_size=gr.themes.sizes.radius_sm,
        font=_FONT,
        font_mono=_MONO,
    )
    return base.set(
        body_background_fill="#ffffff",
        body_background_fill_dark="*neutral_950",
        block_background_fill="*neutral_50",
        block_background_fill_dark="*neutral_900",
        block_border_width="1px",
        block_shadow="none",
        block_label_background_fill="*neutral_50",
        block_label_background_fill_dark="*neutral_900",
        block_label_border_width="0px",
        block_label_text_color="*neutral_600",
        block_label_text_color_dark="*neutral_400",
        block_title_text_color="*neutral_600",
        block_title_text_color_dark="*neutral_400",
        input_background_fill="#ffffff",
        input_background_fill_dark="*neutral_950",
        input_border_color="*neutral_300",
        input_border_color_dark="*neutral_700",
        button_primary_background_fill="*primary_600",
        button_primary_background_fill_hover="*primary_700",
        button_primary_background_fill_dark="*primary_600",
        button_primary_background_fill_hover_dark="*primary_500",
        button_secondary_background_fill="*neutral_100",
        button_secondary_background_fill_hover="*neutral_200",
        button_secondary_background_fill_dark="*neutral_800",
        button_secondary_background_fill_hover_dark="*neutral_700",
        button_secondary_border_color="*neutral_300",
        button_secondary_border_color_dark="*neutral_700",
        button_border_width="1px",
        checkbox_label_background_fill="transparent",
        checkbox_label_background_fill_dark="transparent",
        checkbox_label_background_fill_selected="transparent",
        checkbox_label_background_fill_selected_dark="transparent",
        button_large_text_weight="500",
        button_primary_text_color="#ffffff",
        button_primary_text_color_dark="#ffffff",
    )


def css() -> str:
    """Rules for what rvelens draws itself."""
    return resources.files("rvelens").joinpath("data/app.css").read_text(encoding="utf-8")
