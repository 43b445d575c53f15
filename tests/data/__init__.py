"""Tests of las_tune.data."""
