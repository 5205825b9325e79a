"""What gates cost and what they do, measured; and a page that shows it."""
