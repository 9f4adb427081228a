"""What a training run leaves on disk: its directory, its lock, its checkpoints, its history and its provenance.

Import the modules by name (`from mlp_cli.runs import checkpoint`); this package itself imports nothing heavy.
"""
