"""Shows a MuJoCo model live in a web browser; needs viser, so `envs` does not import it."""
