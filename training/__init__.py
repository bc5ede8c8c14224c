"""The recipe of the canary: a vision model of a few megabytes, made from nothing on one CPU thread.

`README.md` beside this file has the commands. Nothing here is imported by llmctl; the modules that
need torch or sentencepiece say so in their first line.
"""
