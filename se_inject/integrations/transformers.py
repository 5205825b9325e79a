"""Gated models of transformers: ``from_pretrained``, which knows classes, and ``Trainer``, whose checkpoints hold all.

This module needs transformers (``pip install 'se-inject[integrations]'``).
"""

from pathlib import Path
from typing import Any

from transformers import PreTrainedModel, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from ..errors import ArgumentTypeError, GateFileError, GateMismatchError
from ..files.save import save_gates
from ..gate.squeeze_excitation import SqueezeExcitation
from ..inject import apply
from ..training import gates, trained_names

_WEIGHTS = "model.safetensors"  # as Trainer looks for them when it resumes


class GatedModel:
    """Stands before a class of transformers, whose models then have gates from the start.

    ``from_pretrained`` loads gates that ``save_pretrained`` saved; from a checkpoint without gates, they are the
    identity. The arguments of ``apply`` are those in ``config.se_inject``, if it is there, and are saved with it.

    ``from_pretrained`` raises ``GateMismatchError`` for a checkpoint that has a part of a gate; ``ArgumentTypeError``
    comes where this class stands behind another.

    >>> from transformers import ResNetConfig, ResNetForImageClassification
    >>> class SEResNet(GatedModel, ResNetForImageClassification):
    ...     pass
    >>> config = ResNetConfig(depths=[1], hidden_sizes=[8], embedding_size=8, layer_type="basic")
    >>> config.se_inject = {"reduction": 4}
    >>> [name for name, _ in gates(SEResNet(config))]
    ['resnet.encoder.stages.0.layers.0.se']
    """

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if PreTrainedModel in cls.__mro__[: cls.__mro__.index(GatedModel)]:
            raise ArgumentTypeError(
                f"GatedModel must stand first, or it is not asked: class {cls.__name__}(GatedModel, ...)"
            )

    def __init__(self, config: Any, *args: Any, **kwargs: Any) -> None:
        super().__init__(config, *args, **kwargs)  # type: ignore[call-arg]
        apply(self, **getattr(config, "se_inject", {}))  # type: ignore[type-var]

    @classmethod
    def from_pretrained(cls, *args: Any, output_loading_info: bool = False, **kwargs: Any) -> Any:
        """What transformers loads, with gates that are not in the checkpoint as ``apply`` makes them."""
        model, info = super().from_pretrained(*args, output_loading_info=True, **kwargs)  # type: ignore[misc]
        for name, gate in gates(model):
            keys = {f"{name}.{key}" for key in gate.state_dict()}
            missing = keys.intersection(info["missing_keys"])
            # Transformers makes what is missing as it makes the layers of the backbone.
            if missing == keys and isinstance(gate, SqueezeExcitation):
                gate.reset_parameters()
            elif missing:
                raise GateMismatchError(f"{sorted(missing)[0]} is not in the checkpoint: the gate would be random")
        return (model, info) if output_loading_info else model


class GatesCheckpoint(TrainerCallback):  # type: ignore[misc]
    """Lets a Trainer's checkpoints hold what trains of the model: after ``freeze_backbone``, the gates.

    ``trainer.train(resume_from_checkpoint=...)`` resumes from them, optimizer included, if the model was made as
    before: with the same weights of the backbone. ``se_inject.load_gates(model, "checkpoint-10/model.safetensors")``
    reads them, too. They are not for ``from_pretrained``, which would make a backbone of random weights and, by
    ``AutoModel``, finds no ``config.json``.

    Raises ``GateFileError`` where a checkpoint is not one file of safetensors.

    >>> from transformers import TrainingArguments
    >>> GatesCheckpoint().on_save(TrainingArguments("out", use_cpu=True), TrainerState(global_step=10), None)
    Traceback (most recent call last):
    se_inject.errors.GateFileError: out/checkpoint-10: has no model.safetensors: GatesCheckpoint is for ...
    """

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Write the gates over what the Trainer has just written."""
        if not state.is_world_process_zero:
            return
        folder = Path(str(args.output_dir), f"checkpoint-{state.global_step}")
        if not (folder / _WEIGHTS).exists():
            raise GateFileError(f"{folder}: has no {_WEIGHTS}: GatesCheckpoint is for models of one file")
        model = kwargs["model"]
        save_gates(model, folder / _WEIGHTS, include=trained_names(model))
        (folder / "config.json").unlink(missing_ok=True)
