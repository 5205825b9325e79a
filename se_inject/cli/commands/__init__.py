"""The commands: each names a model, calls a function of the library, and prints what that returned."""
