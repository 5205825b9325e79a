"""Long run: ``python -m tests.fuzz 10000 --processes 2`` ends with status 1 if a promise broke."""

import argparse
import multiprocessing
import sys
from collections import Counter

import torch
from tabulate import tabulate
from tqdm import tqdm

from .chunk import CHUNK, run_chunk


def main():
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("cases", type=int)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    seeds = range(arguments.seed, arguments.seed + -(-arguments.cases // CHUNK))
    counts, broken = Counter(), []
    context = multiprocessing.get_context("spawn")
    with (
        context.Pool(arguments.processes, torch.set_num_threads, (1,)) as pool,
        tqdm(total=len(seeds) * CHUNK) as bar,
    ):
        for chunk_counts, case in pool.imap_unordered(run_chunk, seeds):
            counts += chunk_counts
            broken += [case] if case else []
            bar.update(CHUNK)
    print(tabulate(sorted(counts.items()), headers=["outcome", "number"]))
    for seed, source, error in broken:
        print(f"\n{'=' * 100}\nseed {seed}\n{source}\n{error}")
    return bool(broken)


if __name__ == "__main__":
    sys.exit(main())
