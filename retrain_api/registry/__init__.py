"""Versions: stored once and never rewritten, promoted by a rule, served by replicas of `model`."""
