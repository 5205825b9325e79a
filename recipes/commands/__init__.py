"""What a shell calls: ``python -m recipes COMMAND``."""
