"""The register: one person, one identity; its workflows, and the composition root.

``app`` builds every object, ``cli`` is the ``anju`` command. Importing the package itself pulls in
nothing, so that a department's offline verifier can share the command without the service's
dependencies.
"""
