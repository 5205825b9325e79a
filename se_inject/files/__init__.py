"""Gates in files: one safetensors file that holds what was trained, and all that is needed to put it in again."""
