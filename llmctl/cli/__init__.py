"""The command line: thin commands over `llmctl.ops`, one place for output, one for errors."""
