"""`python -m tests.chaos --plans 500 [--seed n]`: run plans of trouble and say what came of it."""

from __future__ import annotations

import argparse
import random
import shutil
import tempfile
from concurrent.futures import as_completed
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from tests.chaos.lanes import LANES, running
from tests.chaos.plans import make
from tests.chaos.run import Report
from tests.chaos.summary import Summary

console = Console()


def main() -> int:
    """Run what the arguments ask for; return 1 if anything was wrong."""
    parser = argparse.ArgumentParser(prog="make chaos", description=__doc__)
    parser.add_argument("--plans", type=int, default=20, help="how many plans to run")
    parser.add_argument("--seed", type=int, help="of the first plan; the others follow it (default: a fresh one)")
    parser.add_argument("--lanes", type=int, default=LANES, help="how many to run at a time")
    parser.add_argument("--show", action="store_true", help="print the plans before they run")
    options = parser.parse_args()
    first = options.seed if options.seed is not None else random.SystemRandom().randrange(10**9)
    console.print(f"{options.plans} plans, the first of seed {first}")
    if options.show:
        for seed in range(first, first + options.plans):
            console.print(str(make(seed)), highlight=False)
    folder = Path(tempfile.mkdtemp(prefix="stepfarm-chaos-"))
    summary = _run_all(range(first, first + options.plans), folder, options.lanes)
    console.print(summary.text(), highlight=False)
    if summary.failed:
        console.print(f"What the farms logged stays in {folder}.")
        return 1
    shutil.rmtree(folder)
    return 0


def _run_all(seeds: range, folder: Path, lanes: int) -> Summary:
    summary = Summary()
    with _progress() as progress, running(seeds, folder, lanes) as reports:
        task = progress.add_task("plans", total=len(seeds), told="")
        try:
            for done in as_completed(reports.values()):
                summary.add(_told(done.result(), progress))
                progress.update(task, advance=1, told=summary.line())
        except KeyboardInterrupt:
            progress.console.print("Stopping when the plans that run have ended.")
    return summary


def _told(report: Report, progress: Progress) -> Report:
    if report.problems:
        progress.console.print(str(report), highlight=False, style="red")
        progress.console.print(f"Replay: make chaos PLANS=1 SEED={report.plan.seed}", highlight=False)
    elif not progress.console.is_terminal:
        progress.console.print(f"seed {report.plan.seed}: well, {report.seconds:.1f} s", highlight=False)
    return report


def _progress() -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    return Progress(*columns, TimeRemainingColumn(), TextColumn("{task.fields[told]}"), console=console)


if __name__ == "__main__":
    raise SystemExit(main())
