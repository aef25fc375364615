"""What keeps money safe, taken away piece by piece, to see that some test notices.

A suite that passes says little about what it would notice. Each safety here names one small change
of the code that removes it, and the tests that must fail then: `python -m tests.mutations`.
"""
