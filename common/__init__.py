"""What all services share: the broker, messages, files, settings, and the life of a process.

    connection, queues, publishing, consuming   RabbitMQ; the only code that knows pika's internals
    messages, artifacts, worker_api             contracts, each declared once as a msgspec struct
    lifecycle                                   start, stop flag, watchdog; settings with new names
    files, http                                 atomic replace, a full disk, HTTP to the API

A service adds the folder above its own to the search path and imports from here, so it runs from a
fresh clone without being installed. The AMQP verbs stay in each service's `serve`.
"""
