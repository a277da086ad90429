"""HTTP: one module for each kind of call. A view validates, calls one service, and returns.

jobs, job_form            jobs of users
models                    versions, and the replicas that serve them
worker, result_form       the workers' own calls
events, streams, log_lines        server-sent events
page, health, openapi     the page, the health check, the description of all this
access, answers           who may call; errors and JSON
views, decoding           structs that are sent; structs that are received
"""
