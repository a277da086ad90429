"""Jobs from their upload to their end.

store         creates a job and its files, and reads them
leases        attempts: a worker claims a job, renews its lease, ends the attempt or loses it
scheduler     the loop: publishes queued jobs, ends leases, purges old files
publishing    RabbitMQ
records       the table `jobs`; nothing else writes it
"""
