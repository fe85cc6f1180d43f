"""Alembic migrations of the register. ``env.py`` runs on the connection it is handed."""
