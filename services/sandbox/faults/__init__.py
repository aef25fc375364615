"""Faults on demand: what goes wrong at the parties, by a plan that can be repeated.

`plan` is pure: which rule hits which request, by a stable hash. `book` keeps plan, counts and
outages in the parties' file, written with the effects that they change. `fate` draws for one
request, `conduct` lets a party act on it under the plan, `callbacks` writes what a party then calls
back. A fault changes what the party does or says, never its memory of what it did: repeats stay
repeats, caps hold, and the movements tell the truth.
"""
