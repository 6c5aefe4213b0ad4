"""What there is to tune in a network: each workload once, with what its layers offer."""

from __future__ import annotations

from dataclasses import dataclass, field

from ..choice import Choice
from ..choosing import offers, workload
from ..plan import Plan
from .database import choice_key
from .isolate import Bench


@dataclass
class Task:
    """Layers of one workload.

    Attributes:
        workload: As `choosing.workload` spells it.
        labels: The layers' names.
        choices: What may compute them, the rules' own first.
        untuned: What computes them without a database.
        bench: The first of the layers, by itself.
        macs: Multiply-accumulates of one layer.
    """

    workload: str
    labels: list[str]
    choices: list[Choice]
    untuned: Choice
    bench: Bench
    macs: int
    _keys: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._keys = [self.key(choice) for choice in self.choices]

    @staticmethod
    def key(choice: Choice) -> str:
        """Return a choice in one fixed spelling."""
        return choice_key(choice.strategy, choice.knobs)

    @property
    def keys(self) -> list[str]:
        """The choices in one fixed spelling."""
        return self._keys

    @property
    def base(self) -> Choice:
        """The rules' own choice, which all others are measured beside."""
        return self.choices[0]

    def new(self, known: set[str]) -> list[int]:
        """Return the numbers of the choices that were not measured, in the order to measure."""
        first = {self.key(self.base): 0, self.key(self.untuned): 1}
        left = [i for i, key in enumerate(self._keys) if key not in known]
        return sorted(left, key=lambda i: (first.get(self._keys[i], 2), i))


def collect_tasks(plan: Plan) -> list[Task]:
    """Return the tasks of a lowered network, in the order of their first layers.

    Layers of one workload may offer unlike choices, where their weights decide what is exact. The
    layer that offers most stands for all; compiling checks each layer's own offers again.
    """
    found: dict[str, Task] = {}
    for layer, untuned in plan.layers:
        key = workload(layer, plan)
        choices = list(offers(layer, plan))
        known = found.get(key)
        labels = [*(known.labels if known else []), layer.label]
        if known is None or len(choices) > len(known.choices):
            bench = Bench(layer, plan)
            found[key] = Task(key, labels, choices, untuned, bench, layer.macs)
        else:
            known.labels.append(layer.label)
    return list(found.values())
