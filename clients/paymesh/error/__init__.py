"""The reasons for which calls are refused, and what a failed call did."""
