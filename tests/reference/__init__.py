"""Slow, simple reference implementations for the tests."""
