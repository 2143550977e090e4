"""A MuJoCo model shown live in a web browser; needs viser, and `envs` itself does not import it."""
