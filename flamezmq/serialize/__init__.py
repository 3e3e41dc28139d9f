"""Python objects to bytes and back; the only package where pickles are made or read.

- `values`: arguments, results, slices of a map.
- `functions`: what a task runs, named by number and content hash.
- `failures`: the exception that a task raised.
- `pickler`, `captures`, `culprit`: what these three share.

Bytes from a peer are unpickled only where the user's code runs: in the
executor and in the client.  Nothing here imports numpy; arrays are met only
when the user has imported it.
"""
