"""The command line: one file a verb, each loaded when it is called."""
