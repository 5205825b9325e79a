"""A folder of gates describes itself to programs, and to people."""

import json
from collections import Counter
from dataclasses import asdict

from .description import Description

_CARD = """---
library_name: se_inject
tags: [squeeze-and-excitation, se_inject, pytorch]{base_model}
---

# {count} gates for {base}

Squeeze-and-Excitation gates for `{model}`, {megabytes:.1f} MB without the network itself.

```python
import se_inject

model = ...  # {base}, with the weights that these gates were trained with
se_inject.load_gates(model, {source})
```

| gate | kind | position | channels | width | form |
|---|---|---|---|---|---|
{rows}
{included}{metrics}
Saved by se_inject {library}.
"""


def config(description: Description) -> str:
    """What programs read: everything but the tensors' shapes.

    >>> from .description import Base
    >>> json.loads(config(Description("0.1.0", Base("Net", "net", {}, ""), (), (), {})))["base"]["name"]
    'net'
    """
    about = asdict(description)
    del about["base"]["tensors"]
    for gate in about["gates"]:
        del gate["tensors"]
    return json.dumps({"library_name": "se_inject"} | about, indent=2) + "\n"


def card(description: Description, source: str, size: int) -> str:
    """What people read; ``source`` is where ``load_gates`` finds the gates, ``size`` their bytes.

    >>> from .description import Base
    >>> description = Description("0.1.0", Base("Net", "net", {}, ""), (), (), {"top-1 error": 23.3})
    >>> print(card(description, "hf://user/name", 0))
    ---
    library_name: se_inject
    ...
    | top-1 error | 23.3 |
    ...
    """
    base = description.base
    rows = [
        (f"`{gate.path}`", gate.kind, gate.position, gate.channels, gate.width or "", gate.init)
        for gate in description.gates
    ]
    kinds = Counter(gate.gate or "own" for gate in description.gates)
    return _CARD.format(
        base_model=f"\nbase_model: {json.dumps(base.name)}" if "/" in base.name else "",
        count=" and ".join(f"{count} {name}" for name, count in kinds.items()),
        base=_cell(base.name or base.model),
        model=base.model,
        source=json.dumps(source),
        megabytes=size / 1e6,
        rows="\n".join(f"| {' | '.join(_cell(cell) for cell in row)} |" for row in rows),
        included=_included(description),
        metrics=_metrics(description),
        library=description.library,
    )


def _included(description: Description) -> str:
    names = ", ".join(f"`{name}`" for name in description.included)
    return f"\nThe file also has {names}.\n" if names else ""


def _metrics(description: Description) -> str:
    rows = [f"| {_cell(name)} | {_cell(value)} |" for name, value in description.metrics.items()]
    return "\n".join(["\n| metric | value |\n|---|---|", *rows, ""]) if rows else ""


def _cell(value: object) -> str:
    return str(value).replace("|", "\\|").replace("\n", " ")
