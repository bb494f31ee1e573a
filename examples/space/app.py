"""Styles of 3D heads, mixed like paint: a gradio app for a Hugging Face Space, or for `python app.py` at home."""

from __future__ import annotations

import itertools
import tempfile
from pathlib import Path

import gradio as gr
from studio import Studio, packs_named, use_few_threads

from distill3d.errors import Distill3dError
from distill3d.styles import STRONGEST

HERE = Path(__file__).parent
INTRODUCTION = """# Style packs of distill3d
Choose a subject, and how much of each style it gets: 0 is the untouched generator, 1 the style as it was trained, more
is too much. The styles are weights of one 3D generator, so every subject has them, seen from everywhere."""


def build(studio: Studio) -> gr.Blocks:
    """The page; `studio` does the work."""
    wide = studio.widest_yaw
    places = itertools.cycle([Path(tempfile.mkdtemp()) / f"{i}.webp" for i in range(16)])  # gradio keeps its own copies
    with gr.Blocks(title="distill3d style packs", analytics_enabled=False) as page:
        gr.Markdown(INTRODUCTION)
        with gr.Row():
            with gr.Column():
                seed = gr.Slider(0, 999, value=0, step=1, label="Subject (seed)")
                yaw = gr.Slider(-wide, wide, value=0, step=5, label="Seen from (degrees)")
                amounts = [
                    gr.Slider(0, STRONGEST, value=float(i == 0), step=0.05, label=label)
                    for i, label in enumerate(studio.labels)
                ]
                geometry, texture = (
                    gr.Slider(0, STRONGEST, value=1, step=0.05, label=f"{part} (times)", visible=studio.has_parts)
                    for part in ("Geometry", "Texture")
                )
            with gr.Column(scale=2):
                with gr.Row():
                    before = gr.Image(label="Before", interactive=False, format="png")
                    after = gr.Image(label="After", interactive=False, format="png")
                button = gr.Button("Turn it round")
                turntable = gr.Image(label="Turntable", type="filepath", interactive=False, visible=False)

        def show(seed, yaw, geometry, texture, *amounts):
            return studio.pictures(seed, yaw, amounts, geometry, texture)

        def turn(seed, geometry, texture, *amounts):
            made = studio.turntable(seed, amounts, geometry, texture, next(places))
            return gr.Image(value=str(made), visible=True)

        controls = [seed, yaw, geometry, texture, *amounts]
        # Of many changes in a row only the last is computed: a slider that is drawn along sends them all.
        gr.on(
            [page.load, *(control.change for control in controls)],
            show,
            controls,
            [before, after],
            trigger_mode="always_last",
            show_progress="hidden",
            api_name="show",
        )
        button.click(turn, [seed, geometry, texture, *amounts], turntable, api_name="turn")
    return page


def refusal(error: Distill3dError) -> gr.Blocks:
    """A page that says why there is no other."""
    with gr.Blocks(title="distill3d style packs", analytics_enabled=False) as page:
        gr.Markdown(f"# Style packs of distill3d\n{error}")
    return page


def open_page() -> gr.Blocks:
    """The page of the packs that are named, or of what is wrong with them."""
    try:
        studio = Studio.open(packs_named(HERE))
    except Distill3dError as error:
        return refusal(error)
    use_few_threads(studio)
    return build(studio)


if __name__ == "__main__":
    # Fonts of the reader's own: nothing of the page comes from elsewhere.
    theme = gr.themes.Soft(font=["system-ui", "sans-serif"], font_mono=["monospace"])
    open_page().queue(default_concurrency_limit=1).launch(theme=theme)
