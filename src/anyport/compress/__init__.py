"""Smaller and faster graphs that are no longer exact: INT8 and FP16, each behind three gates."""
