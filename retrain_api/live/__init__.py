"""The numbers and charts of the page: what happens on the broker, while there are viewers.

[errors], [drift], (metric_counts) ──▶ reader ──▶ statistics ──▶ viewers ──▶ /live/events
"""
