"""The retraining API: CSVs and models come in, better models come out, over HTTP.

    curl ──▶ POST /jobs ──▶ data volume, SQLite ──▶ [retrain_jobs] ──▶ retrain_worker
                                                                            │
    `model` ◀── (model_updates) ◀── versions ◀── /worker: claim, inputs, progress, result
     page   ◀── / and /live/events ◀── [errors]

    application, services, settings, errors     how the parts below are put together
    routes      HTTP: every call, the page, the description of the API
    ingest      uploads, and CSVs into arrays
    jobs        jobs, attempts, the scheduler
    registry    versions, their promotion, the replicas that serve them
    live        the numbers of the page
    storage     SQLite, and files on the data volume

Every answer but the page's is JSON that is readable in a terminal; every error is one sentence that
says what to send instead. A broker that is away delays jobs and refuses none.

    python -m retrain_api        # from the folder above; serves http://127.0.0.1:8000
"""
