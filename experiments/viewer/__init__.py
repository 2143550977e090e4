"""A robot driven live in a web browser."""
