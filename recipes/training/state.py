"""The state of a run: what changes from step to step, on the devices and in the files of its folder."""

from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2
from tqdm import tqdm

from ..data.datasets import Augmented
from ..data.sampling import ClassBalanced
from ..errors import RecipeError
from ..weights.described import Description, save_model
from .batch_norm import RunningStatistics
from .checkpoint import save_checkpoint
from .features import cache_features
from .log import Row, best_epoch, write_log
from .metrics import predict, score
from .optimizer import make_optimizer
from .partial import freeze_rest, training_mode
from .run import Run
from .schedule import lr_factor, set_rates

Inputs = Dataset[Any]  # items with a label


class Training:
    """A run of ``network`` from its start or its checkpoint: takes steps, validates, saves."""

    def __init__(self, run: Run, network: nn.Module, accelerator: Accelerator) -> None:
        self.run, self.accelerator, settings = run, accelerator, run.settings
        self.parts = settings.batch // (settings.device_batch or settings.batch)  # of a step, over all processes
        self.epoch_steps = round(len(run.data.train.labels) / settings.batch)
        self.total = settings.epochs * self.epoch_steps
        self.step = 0
        self.ends = [settings.epochs]  # the planned lengths of the run: one, and one more each time it was extended
        self.history: list[Row] = []
        self.sums = torch.zeros(3, device=accelerator.device)  # of this epoch so far: loss, errors, images
        accelerator.gradient_accumulation_steps = self.parts // accelerator.num_processes

        self.network = network.to(accelerator.device)
        if settings.channels_last:
            self.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.average = None
        if settings.ema:
            decay = get_ema_multi_avg_fn(settings.ema)  # type: ignore[no-untyped-call]
            self.average = AveragedModel(network, multi_avg_fn=decay, use_buffers=True)
        self.mixup = v2.MixUp(alpha=settings.mixup, num_classes=run.model.num_classes) if settings.mixup else None
        freeze_rest(network, run.trained, run.head)
        optimizer = make_optimizer(network, settings, run.head)
        if saved := run.saved():
            self._load(saved, optimizer)
            self._write_results()  # again, as a kill may have come before them
        self.lr_factor = lr_factor(settings, self.epoch_steps, self.ends)
        training_mode(network, run.trained, run.head)
        self.learner: nn.Module = network  # on inputs, which are images, or features that were cached
        transform = run.preprocess.training(settings.augmentation)
        self.inputs: Inputs = Augmented(run.data.train, transform, settings.seed)
        self.validation: Inputs = Augmented(run.data.val, run.preprocess.evaluation())
        if run.cache and not self.ended:
            self.learner, self.inputs, self.validation = cache_features(run, network, accelerator)
        if settings.compile:
            self.learner.compile()
        self.wrapped, self.optimizer = accelerator.prepare(self.learner, optimizer)
        self.statistics = RunningStatistics(network, self.parts)

    @property
    def epoch(self) -> int:
        """Epochs done."""
        return self.step // self.epoch_steps

    @property
    def impatient(self) -> bool:
        """Whether as many epochs as the run is patient were no better than an earlier one."""
        patience = self.run.settings.patience
        return patience is not None and any(row["epoch"] - row["best"] >= patience for row in self.history[-1:])

    @property
    def ended(self) -> bool:
        """Whether there is nothing left to train."""
        return self.step >= self.total or self.impatient

    @property
    def validated(self) -> nn.Module:
        """The network that is validated and saved: the average, if there is one."""
        network: nn.Module = self.network if self.average is None else self.average.module
        return network

    def batches(self) -> DataLoader[Any]:
        """This process's parts of all batches, from the current step to the run's end."""
        run, settings = self.run, self.run.settings
        size, start, stop = settings.batch // self.parts, self.step * self.parts, self.total * self.parts
        sampler = ClassBalanced(run.data.train.labels, settings.seed, size, stop, start)
        cuda = self.accelerator.device.type == "cuda"
        loader = DataLoader(self.inputs, batch_sampler=sampler, num_workers=run.workers, pin_memory=cuda)
        prepared: DataLoader[Any] = self.accelerator.prepare(loader)
        return prepared

    def train_on(self, images: Tensor, labels: Tensor, part: int) -> bool:
        """Forward and backward of the run's part number ``part``; whether it completed a batch, and so a step."""
        seed = np.random.SeedSequence((self.run.settings.seed, part, 1)).generate_state(1)[0]
        torch.manual_seed(int(seed))  # mixup and dropout too depend on the position in the run alone
        if self.mixup:
            images, labels = self.mixup(images, labels)
        if self.run.settings.channels_last and isinstance(images, Tensor):
            images = images.to(memory_format=torch.channels_last)
        set_rates(self.optimizer, self.lr_factor(self.step))
        self.statistics.before_part()
        with self.accelerator.accumulate(self.wrapped):
            logits = self.wrapped(images)
            loss = nn.functional.cross_entropy(logits, labels, label_smoothing=self.run.settings.label_smoothing)
            self.accelerator.backward(loss)
            if self.run.settings.clip and self.accelerator.sync_gradients:
                self.accelerator.clip_grad_norm_(self.network.parameters(), self.run.settings.clip)
            self.optimizer.step()
            self.optimizer.zero_grad()
        self.statistics.after_part()
        strongest = labels.argmax(1) if self.mixup else labels
        errors = (logits.detach().argmax(1) != strongest).sum()
        self.sums += torch.stack([loss.detach() * len(labels), errors, torch.full_like(errors, len(labels))])
        if not self.accelerator.sync_gradients:
            return False
        self.statistics.end_step(self.accelerator)
        if self.average is not None:
            self.average.update_parameters(self.network)
        self.step += 1
        return True

    def end_epoch(self, seconds: float) -> Row:
        """Validate, and add a row to the history: losses, and errors in per cent."""
        loss, errors, images = self.accelerator.reduce(self.sums, "sum").tolist()
        self.sums.zero_()
        network = self.learner if self.average is None else self.validated
        validation = score(*predict(network, self.validation, self.accelerator, workers=self.run.workers))
        training_mode(self.network, self.run.trained, self.run.head)
        row: Row = {"epoch": self.epoch, "step": self.step, "lr": self.optimizer.param_groups[0]["lr"]}
        row |= {"train_loss": loss / images, "train_top1": 100 * errors / images}
        row |= {f"val_{name}": value for name, value in validation.items()}
        row |= {"best": best_epoch([*self.history, row]), "seconds": round(seconds, 1)}
        self.history.append(row)
        return row

    def save(self) -> None:
        """Write the checkpoint; at the end of an epoch, after it, also the log and the weights.

        Raises ``RecipeError``, and writes nothing, if the loss is no longer a number.
        """
        run, scaler = self.run, self.accelerator.scaler
        sums: Tensor = self.accelerator.gather(self.sums[None])  # of each process: a sum of sums would be rounded anew
        losses = [value for row in self.history[-1:] for value in (row["train_loss"], row["val_loss"])]
        weights = torch.stack([parameter.isfinite().all() for parameter in self.network.parameters()])
        if not (sums.isfinite().all() and np.isfinite(losses).all() and weights.all()):
            raise RecipeError(
                f"{run.folder}: the loss is no longer a number at step {self.step}; the last checkpoint is kept; start "
                "again in another --out with a lower --lr, with --clip or --warmup, or without half precision"
            )
        if not self.accelerator.is_main_process:
            return
        state = {
            "identity": run.identity(),
            "step": self.step,
            "ends": self.ends,
            "history": self.history,
            "sums": sums,
            "network": self.network.state_dict(),
            "average": self.average and self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": scaler and scaler.state_dict(),
        }
        save_checkpoint(run.checkpoint, state)
        self._write_results()

    def _write_results(self) -> None:
        """What follows from the checkpoint of an epoch's end alone, so that no lost epoch leaves its weights behind."""
        run = self.run
        if self.step % self.epoch_steps or not self.accelerator.is_main_process:
            return
        write_log(run.folder, self.history)
        about = Description(run.model, run.preprocess, list(run.data.classes))
        save_model(run.folder / "model.safetensors", self.validated, about)
        if self.history[-1]["best"] == self.epoch:
            save_model(run.folder / "best.safetensors", self.validated, about)

    def _load(self, state: dict[str, Any], optimizer: torch.optim.Optimizer) -> None:
        self.step, self.ends, self.history = state["step"], state["ends"], state["history"]
        if self.run.settings.epochs > self.ends[-1]:
            self._extend()
        self.network.load_state_dict(state["network"])
        if self.average is not None:
            self.average.load_state_dict(state["average"])
        optimizer.load_state_dict(state["optimizer"])
        if self.accelerator.scaler is not None:
            self.accelerator.scaler.load_state_dict(state["scaler"])
        sums = state["sums"].to(self.sums.device)
        if len(sums) == self.accelerator.num_processes:
            self.sums += sums[self.accelerator.process_index]
        elif self.accelerator.is_main_process:
            self.sums += sums.sum(0)

    def _extend(self) -> None:
        self.ends.append(self.run.settings.epochs)
        if self.accelerator.is_main_process:
            again = f"; the cosine starts again after epoch {self.ends[-2]}"
            more = f"{self.run.folder}: {self.ends[-1]} epochs instead of {self.ends[-2]}"
            tqdm.write(more + again * (self.run.settings.schedule == "cosine"))
