"""Which methods of a chain run, and in what order: those that do something, and no others."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar

CallT = TypeVar("CallT", contravariant=True)


class Concern(Protocol[CallT]):
    """Middleware of either direction."""

    def before(self, call: CallT) -> None:
        """See a call before it goes on."""
        ...

    def after(self, call: CallT, error: BaseException | None) -> None:
        """See a call that has ended."""
        ...


Before = Callable[[Any], None]
After = Callable[[Any, BaseException | None], None]


def order(
    chain: Sequence[Concern[CallT]], base: type[Concern[CallT]]
) -> tuple[tuple[Before, ...], tuple[tuple[After, ...], ...]]:
    """Return the befores, outermost first, and what runs after a call that N of them let pass.

    A method that a class did not override from `base` does nothing and is left out: every call
    would pay for it.
    """
    acting = [place for place, one in enumerate(chain) if type(one).before is not base.before]
    befores = tuple(chain[place].before for place in acting)
    # After N befores have passed, those concerns have seen the call that stand before the next.
    seen = [*acting, len(chain)]
    afters = tuple(
        tuple(one.after for one in reversed(chain[:place]) if type(one).after is not base.after)
        for place in seen
    )
    return befores, afters
