"""What a search may spend: prices for its penalties, and derivation under a cap, for any rule."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nas_apps.core.arch import one_hot
from nas_apps.core.config import Recipe
from nas_apps.core.errors import UserError
from nas_apps.core.folder import device_name
from nas_apps.core.genotype import Genotype
from nas_apps.core.latency import Stopwatch, load
from nas_apps.core.parts.derive import Random, Rule, Strongest
from nas_apps.core.parts.penalty import Cost
from nas_apps.core.phase import Budget
from nas_apps.core.predictor import Predictor
from nas_apps.core.price import Additive, Narrowed, Price, derived, describe, prices_of, slopes
from nas_apps.core.refusals import search_space
from nas_apps.core.runtime import Runtime
from nas_apps.core.space import NONE, Choice, Space, columns, decided, edge_choice, states

TRIES, STRONGEST_PULL = 1000, 512.0
UNITS = {"params": "parameters", "macs": "multiply-adds", "latency": "ms"}


def prices(recipe: Recipe, names: Iterable[str], runtime: Runtime, space: Space | None = None) -> dict[str, Price]:
    """The prices by what is priced, of the networks that the recipe's final training builds.

    Args:
        names: of `params`, `macs`, `latency`; nothing is built for none.
        space: where options were left out since the search began, what is left; the prices stay the same.
    """
    names, found = set(names), dict[str, Price]()
    if "latency" in names:
        found["latency"] = load(recipe)[0].to(runtime.device)
    if names - {"latency"}:
        found |= {name: price for name, price in prices_of(recipe.task, recipe.train).items() if name in names}
    narrow = None if space is None else decided(space)
    return found if narrow is None else {name: Narrowed(price, narrow) for name, price in found.items()}


def pull(budget: Budget | None) -> tuple[Cost, ...]:
    """The penalty that draws a search to its budget's target; none without a target."""
    if budget is None or budget.target is None:
        return ()
    return (Cost(budget.of, weight=budget.weight, target=budget.target, form="hinge"),)


def exact(recipe: Recipe, genotype: Genotype, runtime: Runtime) -> float:
    """What the network of a genotype costs in the unit of the recipe's budget: counted as built, or measured."""
    assert recipe.search.budget is not None
    of = recipe.search.budget.of
    if of != "latency":
        return describe(recipe.task, genotype, recipe.train)[of]
    return Stopwatch(recipe.search.latency, runtime)(*derived(recipe.task, genotype, recipe.train))


def spent(recipe: Recipe, genotype: Genotype, runtime: Runtime) -> dict[str, Any]:
    """A recipe's budget, and what the network of a genotype costs of it."""
    assert recipe.search.budget is not None
    return {**asdict(recipe.search.budget), "cost": exact(recipe, genotype, runtime)}


def measured(recipe: Recipe) -> bool:
    """Whether what a search ends with depends on measurements: its budget has a cap on latency."""
    budget = recipe.search.budget
    return budget is not None and budget.of == "latency" and budget.cap is not None


def settled(folder: Path, recipe: Recipe, steps: int) -> Genotype | None:
    """What a search has ended with, where to derive it again would be to measure it again."""
    path = folder / "genotype.json"
    there = Genotype.load(path) if measured(recipe) and path.exists() else None
    return there if there is not None and there.meta.get("steps") == steps else None


def limit(recipe: Recipe, runtime: Runtime) -> Limit | None:
    """The cap of a recipe's budget, if it has one; a UserError when no network of the space is under it."""
    budget = recipe.search.budget
    if budget is None or budget.cap is None:
        return None
    price: Price
    if budget.of == "latency":
        price, device = load(recipe)
        if device != (here := device_name(runtime.device)):
            raise UserError(f"search.budget.cap: {recipe.search.latency.file} was measured on {device}, this is {here}")
    else:
        price = prices_of(recipe.task, recipe.train)[budget.of]
    known = Limit(budget.cap, UNITS[budget.of], price, lambda genotype: exact(recipe, genotype, runtime))
    space = search_space(recipe.task, recipe.variant)
    refusal = runtime.gather(known.refusal(recipe.variant.derive, space) if runtime.leads else None)[0]
    if refusal:
        raise UserError(refusal)
    return known


@dataclass(frozen=True)
class Limit:
    """A cap on what a search may end with.

    cap: in `unit`. price: predicted, for latency, and otherwise exact. exact: as built, or measured.
    """

    cap: float
    unit: str
    price: Price
    exact: Callable[[Genotype], float]
    _seen: dict[str, float] = field(default_factory=dict)

    def cost(self, genotype: Genotype, *, final: bool) -> float:
        """By the price or, where `final` and the price is a prediction, as measured, once for each genotype."""
        if not (final and self.price.discrete):
            return float(self.price(one_hot(self.price.space, genotype).weights))
        key = Genotype(genotype.kept).to_json()
        if key not in self._seen:
            self._seen[key] = self.exact(genotype)
        return self._seen[key]

    def derive(
        self, rule: Rule, space: Space, weights: Mapping[str, Tensor], seed: int, *, final: bool = False
    ) -> Genotype:
        """What `rule` makes of weights * exp(-pull * cost / highest cost), with the least pull that fits the cap.

        Without a pull it is the rule's own genotype. With one, where costs add up, a rule that takes the strongest ends
        with the most probable of all architectures that cost no more than this one. A rule that draws at random draws
        again.
        """
        if isinstance(rule, Random):
            return self._redrawn(rule, space, seed, final)

        def at(strength: float) -> tuple[Genotype, bool]:
            weighed = self._weighed(space, weights, strength) if strength else weights
            genotype = rule(space, weighed, torch.Generator().manual_seed(seed))
            return genotype, self.cost(genotype, final=final) <= self.cap

        low, high, (best, fits) = 0.0, 0.0, at(0.0)
        while not fits:
            low, high = high, max(2 * high, 0.125)
            if high > STRONGEST_PULL:
                return self._cheapest(rule, space)
            best, fits = at(high)
        while high - low > 1e-4 * high + 1e-9:
            middle = (low + high) / 2
            genotype, fits = at(middle)
            low, high, best = (low, middle, genotype) if fits else (middle, high, best)
        return best

    def refusal(self, rule: Rule, space: Space) -> str | None:
        """Why nothing that the rule can end with is under the cap; None when something is."""
        cheapest = self._cheapest(Strongest() if isinstance(rule, Random) else rule, space)
        cost = self.cost(cheapest, final=True)
        if not self.price.discrete and (built := self.exact(cheapest)) != cost:
            return f"search.budget: in this space {self.unit} do not add up over options ({built:.0f}, not {cost:.0f})"
        if cost <= self.cap:
            return None
        return f"{self._got()}; allowed: {_told(cost)} and more, the cheapest network"

    def check(self, genotype: Genotype) -> None:
        """Refuse what a search ends with when it is over the cap after all, as built or measured."""
        cost = self.cost(genotype, final=True) if self.price.discrete else self.exact(genotype)
        if cost > self.cap:
            raise UserError(
                f"{self._got()}; allowed: {_told(cost)} and more, the cheapest network of what the search has left"
            )

    def _redrawn(self, rule: Rule, space: Space, seed: int, final: bool) -> Genotype:
        rng = torch.Generator().manual_seed(seed)
        for _ in range(TRIES):
            genotype = rule(space, {}, rng)
            if all(self.cost(genotype, final=last) <= self.cap for last in {False, final}):
                return genotype
        raise UserError(f"{self._got()}, and none of {TRIES} random cells costs so little; allowed: more")

    def _got(self) -> str:
        return f"search.budget.cap: got {_told(self.cap)} {self.unit}"

    def _weighed(self, space: Space, weights: Mapping[str, Tensor], strength: float) -> dict[str, Tensor]:
        costs = self._costs(space)
        highest = max(float(table.abs().max()) for table in costs.values()) or 1.0
        return {name: table.double() * (-strength / highest * costs[name]).exp() for name, table in weights.items()}

    def _cheapest(self, rule: Rule, space: Space) -> Genotype:
        """What a rule makes of weights that fall with the cost of an option."""
        costs = self._costs(space)
        steps = torch.cat([table.flatten() for table in costs.values()]).unique()  # type: ignore[no-untyped-call]
        ranks = {name: torch.searchsorted(steps, table.contiguous()) for name, table in costs.items()}
        return rule(space, {n: 1 - table.double() / len(steps) for n, table in ranks.items()}, torch.Generator())

    def _costs(self, space: Space) -> dict[str, Tensor]:
        """What each option of a space adds, `[R, O]`; that of an edge is the cheapest that may stand there."""
        found, options = {}, self.price.options if isinstance(self.price, Additive | Predictor) else slopes(self.price)
        for name, choice in decided(space).items():
            costs = options[name].gather(1, columns(choice, self.price.space[name]))
            found[name] = costs
            for target in choice.dag.targets() if choice.dag else ():
                edge = edge_choice(name.removesuffix(".op"), target)
                if choice.dag and edge in space:
                    least = _least(choice, costs)[list(choice.dag.into(target))]
                    groups = [list(states(option)) for option in space[edge].rows[0]]
                    found[edge] = torch.stack([least[group].sum() for group in groups])[None]
        return found


def _least(choice: Choice, costs: Tensor) -> Tensor:
    """The cost of the cheapest option of each row that a derived cell may have, `[R]`."""
    allowed = [[option != NONE or choice.dag is None or choice.dag.keep is None for option in r] for r in choice.rows]
    return costs.masked_fill(~torch.tensor(allowed), torch.inf).amin(1)


def _told(cost: float) -> str:
    return f"{cost:.0f}" if cost == int(cost) else f"{cost:.4g}"
