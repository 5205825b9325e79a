"""Check every model of the zoos and write the table: ``python -m tests.zoo --help``."""

import argparse
import json
import multiprocessing
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

from tqdm import tqdm

from .check import TOO_LARGE
from .libraries import LIBRARIES, names
from .table import write_table
from .twins import twins
from .worker import Task, check_task


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.zoo", description=__doc__)
    parser.add_argument("--libraries", nargs="+", choices=LIBRARIES, default=LIBRARIES)
    parser.add_argument("--models", nargs="+", help="only these (default: all, and the twins)")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--run-up-to", type=int, default=350_000_000, help="parameters of the largest model to run")
    parser.add_argument("--export-up-to", type=int, default=16_000_000, help="of the largest model to export")
    parser.add_argument("--timeout", type=int, default=600, help="seconds that one model may take")
    parser.add_argument("--results", type=Path, default=Path("zoo.jsonl"), help="results so far; a later call goes on")
    parser.add_argument("--table", type=Path, default=Path("docs/zoo.md"))
    flags = parser.parse_args()
    tasks = [(library, name) for library in flags.libraries for name in names(library)]
    if flags.models:
        tasks = [task for task in tasks if task[1] in flags.models]
    elif set(flags.libraries) >= {"timm", "pytorchcv"}:
        tasks += [("twins", str(index)) for index in range(len(list(twins())))]
    tasks += [("exported", f"{library}/{name}") for library, name in tasks if library in ("torchvision", "timm")]
    done = {
        (row["library"], row["model"])
        for row in _read(flags.results)
        if row.get("not run") != TOO_LARGE or row["parameters"] > flags.run_up_to
    }
    _run([task for task in tasks if task not in done], flags)
    write_table(_read(flags.results), flags.table)
    print(f"{flags.table} written")


def _read(results: Path) -> list[dict[str, Any]]:
    """The results of all complete lines: a run may have been killed in the middle of one."""
    lines = results.read_text().split("\n")[:-1] if results.exists() else []
    rows = [json.loads(line) for line in lines if line.endswith("}")]
    return list({(row["library"], row["model"]): row for row in rows}.values())  # the last of each


def _run(tasks: list[Task], flags: argparse.Namespace) -> None:
    context = multiprocessing.get_context("spawn")
    with tqdm(total=len(tasks), unit="model") as progress, flags.results.open("a") as file:
        file.write("\n" if file.tell() else "")

        def note(row: dict[str, Any]) -> None:
            file.write(json.dumps(row) + "\n")
            file.flush()
            progress.set_postfix_str(row["model"])
            progress.update()

        while tasks:
            # Fresh processes now and then: some libraries keep what they built.
            part, tasks = tasks[:200], tasks[200:]
            with ProcessPoolExecutor(flags.processes, mp_context=context) as pool:
                futures = {
                    pool.submit(check_task, task, flags.timeout, flags.run_up_to, flags.export_up_to): task
                    for task in part
                }
                for future in as_completed(futures):
                    library, model = futures[future]
                    try:
                        note(future.result())
                    except BrokenProcessPool:  # of all that were waiting; a later call tries them again
                        progress.write(f"a process died near {library} {model}")


if __name__ == "__main__":
    main()
