"""The author's text: which expression an instruction stands for, and functions compiled from edited text."""
