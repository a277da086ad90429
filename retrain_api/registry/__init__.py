"""Versions: stored once and never rewritten, promoted by a rule, served by replicas of `model`.

results ──▶ promotion ──▶ versions          a result of a worker becomes a version
replicas                                    what each `model` serves at the moment
"""
