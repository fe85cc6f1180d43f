"""The sub-commands of ``anju``, a module each. They talk to a running server over mutual TLS."""
