"""A page in the browser: drop images or a clip, look at heat maps, move the threshold, compare two models."""

import atexit
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

from anomalib_memd.modality import Modality

from .judge import Judge, load_judge
from .regions import OPACITY
from .review import Review
from .uploads import Sessions, UploadLimit

AUTOMATIC = "recognise"
KEPT = 3600
"""Seconds after which files of a page that was closed are deleted."""
LARGEST_FILE = "2gb"
"""Of what is dropped."""


def app(model: Path, compare: Path | None = None, host: str = "127.0.0.1", port: int = 7860) -> None:
    """Open a page on which images, a folder or a clip are judged.

    The page is for this machine alone unless another host is given. Nothing is sent anywhere else.

    Args:
        model: Checkpoint of MEMD, or an exported student (.xml, .onnx, .pt, .ts, .pt2).
        compare: A second model, shown beside the first.
        host: Address that the page is served at; 0.0.0.0 lets other machines of the network in.
        port: Port of the address.

    Raises:
        ValueError: If a model is of no use.
        RuntimeError: If Gradio is not installed.
        OSError: If the port is in use.
    """
    judges = [load_judge(path) for path in (model, compare) if path is not None]
    page = build(judges)
    print(f"The page is at http://{host}:{port}. Ctrl+C ends it.", flush=True)  # noqa: T201
    serve(page, host, port)


def serve(page: Any, host: str = "127.0.0.1", port: int | None = None, wait: bool = True) -> str:
    """Serve the page; it loads nothing from elsewhere, and no address outside is made for it.

    Args:
        page: See :func:`build`.
        host: Address.
        port: Port; any that is free if ``None``.
        wait: Whether to wait until the process is ended.

    Returns:
        Address of the page.
    """
    import gradio as gr  # noqa: PLC0415  an extra
    from starlette.middleware import Middleware  # noqa: PLC0415  comes with Gradio

    theme = gr.themes.Default(font=["system-ui", "sans-serif"], font_mono=["monospace"])  # Others are fetched.
    where = {"server_name": host, "server_port": port, "share": False}
    limits = {"max_file_size": LARGEST_FILE, "app_kwargs": {"middleware": [Middleware(UploadLimit)]}}
    return page.launch(
        **where, **limits, theme=theme, footer_links=[], quiet=True, show_error=True, prevent_thread_lock=not wait
    )[1]


def build(judges: Sequence[Judge]) -> Any:
    """The page, as Gradio's ``Blocks``.

    Args:
        judges: One model, or two that are compared.

    Raises:
        RuntimeError: If Gradio is not installed.
    """
    try:
        import gradio as gr  # noqa: PLC0415  an extra
    except ModuleNotFoundError as error:
        msg = "The page needs Gradio; run: pip install 'anomalib-memd[app]'."
        raise RuntimeError(msg) from error
    names = [f"Model {number}: {judge.path}" for number, judge in enumerate(judges, 1)]

    room = _own_folder()
    sessions = Sessions(_cache(room))

    def judge_all(
        files: list[str] | None, whole: list[str] | None, modality: str, request: gr.Request
    ) -> tuple[Review, str]:
        paths = [*(files or []), *(whole or [])]
        folder = Path(mkdtemp(prefix="judged-", dir=room))
        sessions.hold(request.session_hash, folder, paths)
        review = Review.of_files(paths, judges, None if modality == AUTOMATIC else Modality(modality), folder)
        return review, review.problems()

    def leave(request: gr.Request) -> None:
        sessions.end(request.session_hash)

    with gr.Blocks(title="anomalib-memd", analytics_enabled=False, delete_cache=(KEPT, KEPT)) as page:
        review = gr.State(Review([], sessions.cache))
        gr.Markdown("# anomalib-memd\nNot a medical device. Files stay on this machine.")
        with gr.Row():
            with gr.Tab("Images or a clip"):
                files = gr.File(label="Drop images or a clip", file_count="multiple", height=200, elem_id="files")
            with gr.Tab("A folder"):
                whole = gr.File(label="Drop a folder", file_count="directory", height=200, elem_id="folder")
            with gr.Column():
                choices = [AUTOMATIC, *(modality.value for modality in Modality)]
                modality = gr.Radio(choices, value=AUTOMATIC, label="Modality", elem_id="modality")
                opacity = gr.Slider(0, 1, OPACITY, step=0.05, label="Opacity of the heat map", elem_id="opacity")
        trouble = gr.Markdown(elem_id="problems")
        thresholds, counts, outputs = [], [], []
        with gr.Row():
            for number, (name, judge) in enumerate(zip(names, judges, strict=True)):
                with gr.Column():
                    gr.Markdown(f"**{name}**, {', '.join(judge.thresholds).upper()}")
                    start = next(iter(judge.thresholds.values()))
                    ids = [f"{what}-{number}" for what in ("threshold", "count", "gallery")]
                    slider = gr.Slider(0, 1, start, step=0.01, label="Threshold of the score", elem_id=ids[0])
                    thresholds.append(slider)
                    counts.append(gr.Markdown(elem_id=ids[1]))
                    outputs.append(gr.Gallery(label="By score", columns=3, object_fit="contain", elem_id=ids[2]))
        outputs.append(gr.Dataframe(label="Table", interactive=False, elem_id="table"))
        with gr.Row():
            outputs.append(gr.DownloadButton("Table as CSV", elem_id="csv"))
            archive = gr.File(label="Pictures", interactive=False, height=80, elem_id="archive")
            gr.Button("Pictures as ZIP", elem_id="zip").click(_pack, [review, opacity, *thresholds], archive)
        for source in (files, whole, modality):
            judged = source.change(judge_all, [files, whole, modality], [review, trouble])
            judged.then(_count, [review, *thresholds], counts).then(_show, [review, opacity, *thresholds], outputs)
        opacity.change(_show, [review, opacity, *thresholds], outputs, show_progress="hidden")
        for slider in thresholds:
            moved = slider.change(_count, [review, *thresholds], counts, show_progress="hidden")
            moved.then(_show, [review, opacity, *thresholds], outputs, show_progress="hidden")
        page.unload(leave)
    return page


def _own_folder() -> Path:
    """Where pages keep what they show; what is still there goes when the process ends."""
    folder = Path(mkdtemp(prefix="anomalib-memd-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def _cache(room: Path) -> Path:
    """Where Gradio keeps copies of what it shows: where the user has said, or in the folder of this process."""
    return Path(os.environ.setdefault("GRADIO_TEMP_DIR", str(room / "shown")))


def _count(review: Review, *thresholds: float) -> list[str] | str:
    counts = [review.count(number, threshold) for number, threshold in enumerate(thresholds)]
    return counts if len(counts) > 1 else counts[0]  # Gradio shows a list of one as a list.


def _show(review: Review, opacity: float, *thresholds: float) -> list[Any]:
    galleries = [review.gallery(number, threshold, opacity) for number, threshold in enumerate(thresholds)]
    return [*galleries, review.tabulate(thresholds), review.write_table(thresholds)]


def _pack(review: Review, opacity: float, *thresholds: float) -> str:
    return review.pack(thresholds, opacity)
