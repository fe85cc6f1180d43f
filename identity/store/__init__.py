"""The register on SQL: what is true, and stays true through a crash.

``database`` opens it and gives transactions; the other modules are the tables' readers and writers,
one per idea, each bound to one transaction's connection.
"""

from identity.store.database import Database, Transaction

__all__ = ["Database", "Transaction"]
