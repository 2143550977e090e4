"""Models of the world, and what learns from them."""
