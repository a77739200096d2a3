"""What the commands do, one file each. Everything heavy is imported inside a command, so that `--help` is quick."""
