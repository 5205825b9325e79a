"""Processes that tests start and kill: forks of one that has imported everything, so that they take no time."""

import gc
import multiprocessing
import os
import socket
import sys
from pathlib import Path

import torch

_PROCESSES = multiprocessing.get_context("forkserver")
_PROCESSES.set_forkserver_preload(["recipes.train"])


def start(target, *arguments):
    """A running process that calls ``target``, a function of a module."""
    child = _PROCESSES.Process(target=target, args=arguments)
    child.start()
    return child


def quiet(said=os.devnull):
    """In a child: all that it prints goes to the file ``said``, and it computes on one thread."""
    torch.set_num_threads(1)
    gc.freeze()
    sys.stdout = sys.stderr = Path(said).open("w")  # noqa: SIM115


def start_together(target, *arguments):
    """Two processes as ``torchrun`` starts them; each calls ``target`` and is waited for."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    children = [start(_as_rank, rank, port, target, arguments) for rank in range(2)]
    for child in children:
        child.join()
    assert [child.exitcode for child in children] == [0, 0]


def _as_rank(rank, port, target, arguments):
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "OMP_NUM_THREADS": "1"}
    target(*arguments)
    torch.distributed.destroy_process_group()
