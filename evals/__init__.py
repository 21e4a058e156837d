"""Metrics, benchmarks, tables and figures."""
