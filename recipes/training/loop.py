"""The training loop: one short loop for every recipe, on Accelerate, from one CPU to many servers."""

import time

from accelerate import Accelerator
from accelerate.tracking import TensorBoardTracker
from torch import nn
from tqdm import tqdm

from .log import Row
from .run import Run
from .state import Training


def fit(run: Run, network: nn.Module, accelerator: Accelerator) -> list[Row]:
    """Train ``network`` in place as ``run`` says, from its checkpoint if it resumes; the log's rows, one an epoch.

    Leaves in the run's folder ``last.pt``, ``log.csv``, ``model.safetensors`` of the last epoch, and
    ``best.safetensors`` of the one with the lowest top-1 error on the validation images. However often the run is
    killed and resumed, on one machine's CPU the result is the same to the bit. A run that resumes with more epochs
    goes on to these.

    Raises ``CheckpointError`` or ``SettingsError`` for a folder that does not fit, ``RecipeError`` if the loss
    diverges.

    >>> import tempfile
    >>> from pathlib import Path
    >>> from ..data import open_data
    >>> from ..training.accelerator import make_accelerator
    >>> from ..networks.any_model import Model
    >>> from ..training.settings import Settings
    >>> model, data = Model("se_resnet20", "standard", 10), open_data(None)
    >>> run = Run(model, data, model.preprocess(data.size), Settings(epochs=1), Path(tempfile.mkdtemp()))
    >>> rows = fit(run, model.build(), make_accelerator())
    epoch 1  step 1  lr 0.6  train_loss ...  val_loss ...  val_top1 ...  val_top5 ...  best 1  seconds ...
    """
    with run.held(accelerator.is_main_process):
        try:
            return _fit(run, network, accelerator)
        finally:
            accelerator.free_memory()  # also the count of parts, which the next run starts anew


def _fit(run: Run, network: nn.Module, accelerator: Accelerator) -> list[Row]:
    training = Training(run, network, accelerator)
    main, processes = accelerator.is_main_process, accelerator.num_processes
    board = None
    if run.tensorboard and main:  # rows of a killed run that came after its checkpoint are replaced
        board = TensorBoardTracker("tensorboard", run.folder, purge_step=training.epoch + 1)
        board.start()
    bar = tqdm(total=training.total, initial=training.step, desc=run.folder.name, unit="step", disable=not main)
    first, started = training.step * training.parts + accelerator.process_index, time.monotonic()
    for i, (images, labels) in enumerate(() if training.ended else training.batches()):
        if not training.train_on(images, labels, first + i * processes):
            continue
        bar.update()
        epoch_ends = training.step % training.epoch_steps == 0
        if epoch_ends:
            row, started = training.end_epoch(time.monotonic() - started), time.monotonic()
        if epoch_ends or (run.checkpoint_steps and training.step % run.checkpoint_steps == 0):
            training.save()
        if epoch_ends and main:
            tqdm.write("  ".join(f"{name} {value:.4g}" for name, value in row.items()))
            if board:
                board.log(row, step=training.epoch)
        if epoch_ends and training.impatient:
            break
    bar.close()
    if main and training.impatient and training.step < training.total:
        patience, best = run.settings.patience, training.history[-1]["best"]
        tqdm.write(f"stopped: for {patience} epochs no better on the validation images than epoch {best:.0f}")
    accelerator.wait_for_everyone()
    return training.history
