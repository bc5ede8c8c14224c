#!/bin/sh
# As in LocalAI's image: no arguments, words for `run`, or a subcommand.
exec ./local-ai "$@"
