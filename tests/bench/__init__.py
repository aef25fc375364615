"""Benchmarks: ratios against stated baselines, in interleaved windows of one run."""
