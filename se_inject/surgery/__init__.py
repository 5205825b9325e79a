"""Changing modules: gated blocks, and all or nothing."""
