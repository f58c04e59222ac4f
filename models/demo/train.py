"""Make the demo checkpoints: `python models/demo/train.py --help`."""

from pathlib import Path
from typing import Annotated

import layout
import typer

app = typer.Typer(no_args_is_help=True, add_completion=False)


@app.callback()
def main() -> None:
    """Make the demo checkpoints from nothing."""


@app.command()
def untrained(out: Annotated[Path, typer.Option(help="the file to write")], seed: int = 0) -> None:
    """Write a checkpoint of random weights: the right form without the training."""
    shape = layout.Shape()
    layout.save(layout.build(shape, seed), shape, out)


if __name__ == "__main__":
    app()
