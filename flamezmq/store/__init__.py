"""The node's cache: objects in shared memory, owned by the worker, read by every process of the node.

Where what stands is in ARCHITECTURE.md, "Objects".
"""
