"""Who captured this sample, and do we believe it?

A leaf package: the device certificate authority, one-time provisioning, and the client library that
runs on a capture terminal. It knows terminals, stations and operators as ids, never persons or SQL.
Importing the package itself pulls in nothing. ``README.md`` beside this file shows how a terminal
gets its certificate and how a vendor connects.
"""
