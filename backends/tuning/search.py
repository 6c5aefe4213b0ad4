"""How MetaSchedule walks through a layer's choices.

Where the trials suffice, every choice is measured once, the rules' own first. Else MetaSchedule's
evolutionary search picks, led by a model that learns from the knobs which choices are fast.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from tvm import IRModule
from tvm.ir.utils import derived_object
from tvm.s_tir import meta_schedule as ms
from tvm.s_tir.meta_schedule import _ffi_api
from tvm.s_tir.meta_schedule.cost_model import PyCostModel
from tvm.s_tir.meta_schedule.logging import get_logging_func
from tvm.s_tir.meta_schedule.runner import RunnerResult
from tvm.s_tir.meta_schedule.search_strategy import MeasureCandidate, PySearchStrategy
from tvm.s_tir.schedule import Schedule
from tvm.target import Target as TvmTarget

from ..choice import Choice
from .space import design_space, noted, stand_in, with_choice

# How far a measurement tells of others, in columns of `features`.
_REACH = 0.3
# The weight of the made-up measurement.
_PRIOR = 0.1

_logger = logging.getLogger(__name__)
_logger.addHandler(logging.NullHandler())
_logger.propagate = False


class Context(ms.TuneContext):
    """A layer as a task of MetaSchedule's.

    Its own constructor would first load TVM's tensor intrinsics, half a minute of parsing for
    hardware that no kernel of planish's is scheduled with.
    """

    def __init__(
        self,
        workload: str,
        choices: Sequence[Choice],
        strategy: ms.search_strategy.SearchStrategy,
        seed: int,
    ) -> None:
        self.__init_handle_by_constructor__(
            _ffi_api.TuneContext,  # type: ignore[attr-defined]
            stand_in(workload),
            TvmTarget("llvm"),
            design_space(choices),
            strategy,
            workload,
            1,
            seed,
            get_logging_func(_logger),
        )
        _ffi_api.TuneContextInitialize(self)  # type: ignore[attr-defined]


def evolution(choices: int, first: Sequence[int]) -> RulesFirst:
    """Return MetaSchedule's search, its population fit for this many choices.

    Args:
        choices: How many there are.
        first: What to measure before it begins.
    """
    population = max(16, min(64, choices // 2))
    search = ms.search_strategy.EvolutionarySearch(
        population_size=population,
        init_min_unmeasured=min(8, population),
        genetic_num_iters=2,
        eps_greedy=0.2,
    )
    return RulesFirst(Enumeration(first), search)  # type: ignore[arg-type]


@derived_object
class Enumeration(PySearchStrategy):
    """Measures the choices with these numbers, in this order."""

    def __init__(self, numbers: Sequence[int]) -> None:
        super().__init__()
        self._left = list(numbers)
        self._module: IRModule | None = None
        self._space: Schedule | None = None
        self._batch = 1

    def _initialize_with_tune_context(self, context: ms.TuneContext) -> None:
        self._module = context.mod

    def pre_tuning(
        self,
        max_trials: int,
        num_trials_per_iter: int,
        design_spaces: list[Schedule],
        database: ms.database.Database | None = None,
        cost_model: ms.cost_model.CostModel | None = None,
    ) -> None:
        """Take the design space; there is one."""
        del max_trials, database, cost_model
        self._space, self._batch = design_spaces[0], num_trials_per_iter

    def post_tuning(self) -> None:
        """Do nothing."""

    def generate_measure_candidates(self) -> list[MeasureCandidate] | None:
        """Return the next batch, None at the end."""
        assert self._module is not None
        assert self._space is not None
        batch, self._left = self._left[: self._batch], self._left[self._batch :]
        schedules = [with_choice(self._module, self._space, number) for number in batch]
        return [MeasureCandidate(schedule, []) for schedule in schedules] or None

    def notify_runner_results(
        self, measure_candidates: list[MeasureCandidate], results: list[RunnerResult]
    ) -> None:
        """Do nothing: the order is fixed."""

    def clone(self) -> Enumeration:  # type: ignore[override]
        """Return one with the same choices left."""
        return Enumeration(self._left)


@derived_object
class RulesFirst(PySearchStrategy):
    """Measures some choices in a fixed order, then those that another strategy picks."""

    def __init__(
        self,
        first: ms.search_strategy.SearchStrategy,
        then: ms.search_strategy.SearchStrategy,
    ) -> None:
        super().__init__()
        self._strategies = [first, then]

    def _initialize_with_tune_context(self, context: ms.TuneContext) -> None:
        for strategy in self._strategies:
            strategy._initialize_with_tune_context(context)

    def pre_tuning(
        self,
        max_trials: int,
        num_trials_per_iter: int,
        design_spaces: list[Schedule],
        database: ms.database.Database | None = None,
        cost_model: ms.cost_model.CostModel | None = None,
    ) -> None:
        """Prepare both."""
        for strategy in self._strategies:
            strategy.pre_tuning(
                max_trials, num_trials_per_iter, design_spaces, database, cost_model
            )

    def post_tuning(self) -> None:
        """End both."""
        for strategy in self._strategies:
            strategy.post_tuning()

    def generate_measure_candidates(self) -> list[MeasureCandidate] | None:
        """Return the next batch, None at the end."""
        found = self._strategies[0].generate_measure_candidates()
        if found is None and len(self._strategies) > 1:
            del self._strategies[0]
            return self.generate_measure_candidates()
        return found

    def notify_runner_results(
        self, measure_candidates: list[MeasureCandidate], results: list[RunnerResult]
    ) -> None:
        """Tell both."""
        for strategy in self._strategies:
            strategy.notify_runner_results(measure_candidates, results)

    def clone(self) -> RulesFirst:  # type: ignore[override]
        """Return one with clones of both."""
        first, *then = [strategy.clone() for strategy in self._strategies]
        return RulesFirst(first, then[0] if then else first)


@derived_object
class KnobModel(PyCostModel):
    """Predicts a choice's speed beside the layer's fastest one so far, from like choices.

    A layer has dozens of choices and few knobs: that is too little for trees or networks.
    """

    def __init__(self, choices: Mapping[str, Sequence[Choice]]) -> None:
        super().__init__()
        self._features = {workload: features(offered) for workload, offered in choices.items()}
        self._seconds: dict[str, dict[int, float]] = {workload: {} for workload in choices}

    def load(self, path: str) -> None:
        """Do nothing: the records teach it anew."""

    def save(self, path: str) -> None:
        """Do nothing."""

    def update(
        self,
        context: ms.TuneContext,
        candidates: list[MeasureCandidate],
        results: list[RunnerResult],
    ) -> None:
        """Learn from measurements; what failed counts as slow."""
        del context
        for candidate, result in zip(candidates, results, strict=True):
            workload, number = noted(candidate.sch.mod)
            seconds = [float(s) for s in result.run_secs] if result.run_secs else [1e3]
            self._seconds[workload][number] = min(seconds)

    def predict(
        self, context: ms.TuneContext, candidates: list[MeasureCandidate]
    ) -> NDArray[np.float64]:
        """Return a positive score for each candidate."""
        del context
        found = [noted(candidate.sch.mod) for candidate in candidates]
        scores = [self._scores(workload)[number] for workload, number in found]
        return np.array(scores, np.float64)

    def _scores(self, workload: str) -> NDArray[np.float64]:
        """Return each choice's expected speed: measured ones count by how near they are.

        Nadaraya, "On estimating regression", 1964, with one made-up measurement of full speed
        everywhere: what is far from all that was measured is worth a try.
        """
        seconds = self._seconds[workload]
        rows = self._features[workload]
        if not seconds:
            return np.ones(len(rows))
        numbers = list(seconds)
        speed = min(seconds.values()) / np.array([seconds[n] for n in numbers])
        distance = np.abs(rows[:, None] - rows[None, numbers]).sum(2)
        weights = np.exp(-distance / _REACH)
        return (weights @ speed + _PRIOR) / (weights.sum(1) + _PRIOR)


def features(choices: Sequence[Choice]) -> NDArray[np.float32]:
    """Return one row a choice, each column between 0 and 1.

    Strategies and words among the knobs are columns of 0 and 1; numbers are columns of their rank
    among the values that the knob takes, -1 for a choice that does not have the knob.
    """
    numbers: dict[str, NDArray[np.float32]] = {}
    words: dict[str, NDArray[np.float32]] = {}
    for row, choice in enumerate(choices):
        for name, value in {"strategy": choice.strategy, **choice.knobs}.items():
            if isinstance(value, int | float):
                numbers.setdefault(name, np.full(len(choices), np.nan, np.float32))[row] = value
            else:
                words.setdefault(f"{name}={value}", np.zeros(len(choices), np.float32))[row] = 1.0
    return np.stack([*words.values(), *map(_ranks, numbers.values())], 1)


def _ranks(values: NDArray[np.float32]) -> NDArray[np.float32]:
    known = np.unique(values[~np.isnan(values)])
    ranks = np.searchsorted(known, values) / max(len(known) - 1, 1)
    return np.where(np.isnan(values), -1.0, ranks).astype(np.float32)
