"""A page in the browser: drop images or a clip, look at heat maps, move the threshold, compare two models."""

import os
from collections.abc import Sequence
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

from anomalib_memd.modality import Modality

from . import review
from .judge import Judge, load_judge
from .regions import OPACITY

AUTOMATIC = "recognise"


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

    theme = gr.themes.Default(font=["system-ui", "sans-serif"], font_mono=["monospace"])  # Others are fetched.
    where = {"server_name": host, "server_port": port, "share": False}
    return page.launch(
        **where, theme=theme, footer_links=[], quiet=True, show_error=True, prevent_thread_lock=not wait
    )[1]


def build(judges: Sequence[Judge]) -> Any:  # noqa: PLR0915  all that is on the page
    """The page, as Gradio's ``Blocks``.

    Args:
        judges: One model, or two that are compared.

    Raises:
        RuntimeError: If Gradio is not installed.
    """
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
    try:
        import gradio as gr  # noqa: PLC0415  an extra
    except ModuleNotFoundError as error:
        msg = "The page needs Gradio; run: pip install 'anomalib-memd[app]'."
        raise RuntimeError(msg) from error
    names = [f"Model {number}: {judge.path}" for number, judge in enumerate(judges, 1)]
    folder = Path(mkdtemp(prefix="anomalib-memd-"))

    def judge_all(files: list[str] | None, modality: str) -> tuple[list[review.Finding], str]:
        given = None if modality == AUTOMATIC else Modality(modality)
        findings = review.judge_files(files or [], judges, given)
        return findings, review.problems(findings)

    def own_folder(request: gr.Request) -> Path:
        path = folder / str(request.session_hash)
        path.mkdir(exist_ok=True)
        return path

    def show(request: gr.Request, findings: list[review.Finding], opacity: float, *thresholds: float) -> list[Any]:
        shown: list[Any] = []
        for number, threshold in enumerate(thresholds):
            shown.append(review.count(findings, number, threshold))
            shown.append(review.gallery(findings, number, threshold, opacity))
        table = review.tabulate(findings, thresholds)
        path = own_folder(request) / "scores.csv"
        table.to_csv(path, index=False)
        return [*shown, table, str(path)]

    def pack(request: gr.Request, findings: list[review.Finding], opacity: float, *thresholds: float) -> str:
        return str(review.pack(findings, thresholds, opacity, own_folder(request) / "pictures.zip"))

    with gr.Blocks(title="anomalib-memd", analytics_enabled=False) as page:
        findings = gr.State([])
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
        thresholds, outputs = [], []
        with gr.Row():
            for number, (name, judge) in enumerate(zip(names, judges, strict=True)):
                with gr.Column():
                    gr.Markdown(f"**{name}**, {', '.join(judge.thresholds).upper()}")
                    start = next(iter(judge.thresholds.values()))
                    label, mark = "Threshold of the score", f"threshold-{number}"
                    thresholds.append(gr.Slider(0, 1, start, step=0.01, label=label, elem_id=mark))
                    outputs.append(gr.Markdown(elem_id=f"count-{number}"))
                    mark = f"gallery-{number}"
                    outputs.append(gr.Gallery(label="By score", columns=3, object_fit="contain", elem_id=mark))
        outputs.append(gr.Dataframe(label="Table", interactive=False, elem_id="table"))
        with gr.Row():
            outputs.append(gr.DownloadButton("Table as CSV", elem_id="csv"))
            archive = gr.File(label="Pictures", interactive=False, height=80, elem_id="archive")
            gr.Button("Pictures as ZIP", elem_id="zip").click(pack, [findings, opacity, *thresholds], archive)
        shown = [findings, opacity, *thresholds]
        for source in (files, whole):
            for event in (source.change, modality.change):
                event(judge_all, [source, modality], [findings, trouble]).then(show, shown, outputs)
        for slider in (opacity, *thresholds):
            slider.change(show, shown, outputs, show_progress="hidden")
    return page
