"""The contracts of `risk`: pass, challenge or block, and why."""
