"""Tests of recipes.evidence."""
