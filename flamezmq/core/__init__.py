"""The pure core: messages and time in, effects out.

No clock, socket, file, thread or randomness in here.  The same calls give the
same effects in the same order.  Tested by a simulated cluster (tests/sim).
"""
