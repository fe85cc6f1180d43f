"""How alike are these fingerprints, and is that enough?

A leaf package: it knows minutiae templates and opaque subject ids, never persons, servers or SQL.
Start at :class:`matcher.matcher.Matcher`; ``README.md`` beside this file explains the algorithm.
"""
