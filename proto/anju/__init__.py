"""The wire contract of anju; the sub-packages are versions."""
