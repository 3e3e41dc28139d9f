"""The wire: what the processes say to each other, and how it is spelled.

`messages` are the sentences, `codec` turns them into frames and back.
PROTOCOL.md is the prose.
"""
