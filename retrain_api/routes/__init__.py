"""HTTP: one module for each kind of call. A view validates, calls one service, and returns.

jobs, job_form    jobs of users
models            versions, and the replicas that serve them
worker            the workers' own calls
events            server-sent events
page, openapi     the page and the health check, the description of all this
access, answers   who may call; errors and JSON
views, decoding   structs that are sent; what is received
"""
