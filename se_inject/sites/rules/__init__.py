"""The site rules, a file each."""
