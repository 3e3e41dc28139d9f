"""Sockets: the dialling side (`line`) and the router's side (`board`).  The only users of ZeroMQ."""
