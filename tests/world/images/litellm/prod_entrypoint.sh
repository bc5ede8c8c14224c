#!/bin/sh
# As in the official image: its arguments are litellm's.
exec litellm "$@"
