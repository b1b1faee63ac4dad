"""How long errors from the reset stay small."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from quantgru.error_bounds.enclosure import Enclosure
from quantgru.error_bounds.network import Network


@dataclass(frozen=True)
class FromReset:
    """The longest sequences whose errors stay small.

    steps       of them; as many as were looked for if any_length
    error       the largest |integer - float| of h in these; 0 for no steps
    any_length  whether none is larger in sequences of any number of steps
    """

    steps: int
    error: float
    any_length: bool


def longest_from_reset(
    network: Network, x: Enclosure, largest_error: float, most_steps: int, progress: Callable[[int], None]
) -> FromReset:
    """`progress` is called with 1 after each step that is proved; of a model of whole sequences, after each length."""
    find = _step_by_step if network.streaming else _by_length
    return find(network, x, largest_error, most_steps, progress)


def _step_by_step(
    network: Network, x: Enclosure, largest_error: float, most_steps: int, progress: Callable[[int], None]
) -> FromReset:
    """What states are before a step includes what they were before earlier ones, so that errors never fall.

    After 1, 2, 4, ... steps, a set is tried that is wider by as much as the last half of them has added. If a step from
    there leads into it again, no state ever leaves it, however many steps follow.
    """
    states = earlier = [pair.reset() for pair in network.grus]
    proved = 0.0
    for step in range(1, most_steps + 1):
        after = _step(network, x, states)
        if not (error := _largest_error(after)) <= largest_error:
            return FromReset(step - 1, proved, False)
        proved = error
        progress(1)
        states = [h.hull(found) for h, found in zip(states, after, strict=True)]
        if step.bit_count() > 1:
            continue
        wider = [h.extrapolated(before) for h, before in zip(states, earlier, strict=True)]
        after = _step(network, x, wider)
        stay = all(h.contains(found) for h, found in zip(wider, after, strict=True))
        if stay and (error := _largest_error(after)) <= largest_error:
            return FromReset(most_steps, error, True)
        earlier = states
    return FromReset(most_steps, proved, False)


def _by_length(
    network: Network, x: Enclosure, largest_error: float, most_steps: int, progress: Callable[[int], None]
) -> FromReset:
    """Of models that need whole sequences: by doubling the length, then by halves."""

    def error(n_steps: int) -> float:
        states, _ = network.run([x] * n_steps, [pair.reset() for pair in network.grus])
        progress(1)
        return max(_largest_error(of_layer) for of_layer in states)

    good, error_of_good, bad = 0, 0.0, most_steps + 1
    tried = 1
    while good + 1 < bad:
        found = error(tried)
        if found <= largest_error:
            good, error_of_good = tried, found
        else:
            bad = tried
        tried = min(2 * good, most_steps) if bad > most_steps else (good + bad) // 2
    return FromReset(good, error_of_good, False)


def _step(network: Network, x: Enclosure, states: Sequence[Enclosure]) -> list[Enclosure]:
    """h of each GRU layer after one step."""
    of_layers, _ = network.run([x], states)
    return [after for (after,) in of_layers]


def _largest_error(states: Sequence[Enclosure]) -> float:
    return max(float(h.errors.magnitude.max()) for h in states)
