"""The paper's figures: training curves, and gate activations by class."""
