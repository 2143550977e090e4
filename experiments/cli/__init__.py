"""The `mbrl` command: a file a command, loaded when it is called."""
