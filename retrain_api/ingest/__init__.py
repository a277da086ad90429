"""Uploads: multipart forms onto the disk, CSVs into float32 arrays.

    upload ──▶ spooled files ──▶ dialect ──▶ cells, table ──▶ dataset ──▶ split ──▶ two arrays

Nothing here knows jobs, and but for `upload` nothing knows HTTP.
"""
