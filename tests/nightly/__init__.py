"""Tests that take longer than continuous integration may; run them by -m nightly."""
