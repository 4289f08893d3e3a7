"""Benchmarks: questions with known answers."""
