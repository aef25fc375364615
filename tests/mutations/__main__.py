"""`python -m tests.mutations [NAME…]`: take safeties away, and see their tests fail.

Exit status 1 when some test does not notice. `--commit HEAD` judges a commit instead of the files
as they lie.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Sequence

from common.embedded.cluster import Servers
from tests.mutations.runner import Verdict, copied_tree, failures_of_the_whole, judge
from tests.mutations.safety import MutationError, Safety
from tests.mutations.table import SAFETIES


def main() -> int:
    """Run what the command line names; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutations", description=__doc__)
    parser.add_argument("names", nargs="*", help="safeties; none for all")
    parser.add_argument("--commit", default="", help="judge the files of this commit")
    options = parser.parse_args()
    unknown = sorted(set(options.names) - {safety.name for safety in SAFETIES})
    if unknown:
        parser.error(f"no safety {', '.join(unknown)}; docs/safeties.md lists them")
    chosen = [one for one in SAFETIES if not options.names or one.name in options.names]
    return asyncio.run(_run(chosen, options.commit))


async def _run(safeties: Sequence[Safety], commit: str) -> int:
    async with Servers("mutations", temporary=True, side_by_side=True) as servers:
        return await asyncio.to_thread(_judge_all, safeties, commit, servers.environment)


def _judge_all(safeties: Sequence[Safety], commit: str, environment: dict[str, str]) -> int:
    with copied_tree(environment, commit) as tree:
        try:
            for safety in safeties:
                safety.check(tree.root)
        except MutationError as error:
            _say(str(error))
            return 1
        _say(f"with every safety in place: the tests of {len(safeties)} …")
        failed, whole = failures_of_the_whole(tree, safeties)
        if failed:
            _say(
                f"{whole.output}\n\nthese do not pass, so nothing can be said: {', '.join(failed)}"
            )
            return 1
        _say(f"all pass ({whole.seconds:.0f} s); now without")
        verdicts = []
        for safety in safeties:
            verdicts.append(judge(tree, safety))
            _tell(verdicts[-1])
    uncaught = [verdict.safety.name for verdict in verdicts if verdict.uncaught]
    _say(f"{len(verdicts) - len(uncaught)} of {len(verdicts)} safeties are watched")
    if uncaught:
        _say(f"not watched: {', '.join(uncaught)}")
    return 1 if uncaught else 0


def _tell(verdict: Verdict) -> None:
    word = "NOT NOTICED" if verdict.uncaught else "noticed"
    _say(f"  {verdict.safety.name:<34} {word:<12} {verdict.run.seconds:5.1f} s")
    if verdict.uncaught:
        _say(f"{verdict.run.output}\nstill passing, or never run: {', '.join(verdict.uncaught)}")


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
