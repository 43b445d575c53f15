"""Tests mirror las_tune."""
