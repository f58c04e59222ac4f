"""`farm models check`: says what model files are, without a farm. A process of the worker reads them."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import IO, Final, cast

from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from cli import terminal
from cli.terminal import Row, table
from shared.errors import FarmError
from shared.models import scan
from shared.models.architectures import label
from shared.models.details import Details
from shared.models.folders import ModelFolders, ModelPath
from shared.models.kinds import KINDS, Kind
from shared.models.report import NUMBER_BYTES, FileReport
from shared.quantities import counted, data_size
from shared.settings import Settings

_NETWORKS: Final = {
    "text_encoder": "text encoder", "text_encoder_2": "text encoder 2", "unet": "U-Net", "vae": "VAE",
    "decoder": "tiny decoder",
}  # fmt: skip
Show = Callable[[str], None]  # takes the name of the file that is read now


def check(settings: Settings, paths: Sequence[Path], *, as_json: bool) -> int:
    """Print what each file, and each model file in a folder, is; return 0 if all can be used, else 1."""
    files = [file for path in paths for file in _files(path, settings.models)]
    reports = list(_read(files, as_json=as_json))
    are_usable = bool(reports) and all(report.usable for report in reports)
    if as_json:
        terminal.answer_json({"usable": are_usable, "files": [report.to_json() for report in reports]})
    for report in () if as_json else reports:
        _print(report)
    if not reports:
        terminal.warn(f"No model file lies in {', '.join(map(str, paths))}.")
    return 0 if are_usable else 1


def _files(path: Path, models: ModelFolders) -> list[ModelPath]:
    """Return the model files that `path` means: itself, or those in it if it is a folder of files.

    Outside the models folders only the folder that is given, and those in it, say which kind a file should be of.
    """
    try:
        if path.is_dir() and not (path / scan.INDEX).exists():
            found = sorted(scan.model_files(ModelFolders((path,))))
            return [file._replace(place=models.place(file.path) or file.place) for file in found]
    except OSError:  # its report says why
        pass
    return [ModelPath(path, path.name, models.place(path) or path.name)]


def _read(files: Sequence[ModelPath], *, as_json: bool) -> Iterator[FileReport]:
    """Yield the reports of files, one after the other. Raises FarmError if none can be read at all."""
    if not files:
        return
    is_shown = terminal.err.is_terminal and not as_json
    with _bar(len(files)) if is_shown else nullcontext(lambda _: None) as show, _reader() as reader:
        for file in files:
            show(file.name)
            yield _asked(reader, file)


@contextmanager
def _reader() -> Iterator[subprocess.Popen[str]]:
    """Yield a process that reports on files; it ends with the block, and what it started ends with it."""
    command = [sys.executable, "-m", "worker.check"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True) as reader:  # noqa: S603
        try:
            yield reader
        finally:
            reader.kill()


def _asked(reader: subprocess.Popen[str], file: ModelPath) -> FileReport:
    questions, answers, errors = (cast("IO[str]", pipe) for pipe in (reader.stdin, reader.stdout, reader.stderr))
    with suppress(BrokenPipeError):  # it has ended, which its answer shows
        questions.write(json.dumps({"path": str(file.path), "place": file.place}) + "\n")
        questions.flush()
    line = answers.readline()
    if not line:
        why = (errors.read().strip().splitlines() or ["it gives no reason"])[-1]
        raise FarmError(f"The process that reads model files ended: {why}.")
    answer = json.loads(line)
    if "error" in answer:
        raise FarmError(f"{answer['error']}. Is the worker installed? `farm doctor pytorch` says more.")
    return FileReport(**answer["report"])


@contextmanager
def _bar(files: int) -> Iterator[Show]:
    """Yield what shows how many files are read, and which one is; gone at the end."""
    columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("{task.description}"))
    with Progress(*columns, console=terminal.err, transient=True) as progress:
        bar = progress.add_task("", total=files)
        yield lambda name: progress.update(bar, advance=progress.tasks[bar].description != "", description=escape(name))


def _print(report: FileReport) -> None:
    verdict = "[green]can be used[/]" if report.usable else f"[red]cannot be used:[/] {escape(report.reason or '')}"
    terminal.out.print(f"{escape(report.path)}: {verdict}")
    words_of = ", ".join(Details.read(report.details).trigger_words)
    lines = (_kind(report), words_of and f"trigger words: {words_of}", report.note)
    for words in filter(None, (*lines, *(f"needs {one}" for one in report.needs))):
        terminal.answer(f"  {words}")
    if report.networks:
        table(("  network", "stored as", *(f"in {form}" for form in NUMBER_BYTES)), _rows(report), "")


def _kind(report: FileReport) -> str:
    """Return what a file is: `checkpoint, Stable Diffusion XL, predicts noise, 1024 px, VAE inside, 6.5 GB`."""
    kind = KINDS[cast("Kind", report.kind)].label if report.usable else ""
    vae = {True: "VAE inside", False: "no VAE inside", None: ""}[report.has_vae]
    details = Details.read(report.details)
    facts = (
        kind,
        details.algorithm if details.algorithm != kind else "",
        label(report.architecture) if report.architecture else "",
        f"rank {details.rank}" if details.rank else "",
        f"x{details.scale}" if details.scale else "",
        counted(sum(details.vectors.values()), "vector") if details.vectors else "",
        f"predicts {report.prediction}" if report.prediction else "",
        "zero terminal SNR" if report.has_zero_terminal_snr else "",
        "for inpainting" if report.is_inpainting else "",
        f"{report.native_size} px" if report.native_size else "",
        vae,
        "" if report.size is None else data_size(report.size),
    )
    return ", ".join(filter(None, facts))


def _rows(report: FileReport) -> Iterator[Row]:
    memory = report.memory()
    for name in sorted(memory, key=[*_NETWORKS, *memory].index):
        formats = report.networks[name]
        stored = ", ".join(sorted(formats, key=lambda form: -formats[form]))
        yield f"  {_NETWORKS.get(name, name)}", stored, *map(data_size, memory[name].values())
    if len(memory) > 1:
        yield "  together", "", *(data_size(sum(one[form] for one in memory.values())) for form in NUMBER_BYTES)
