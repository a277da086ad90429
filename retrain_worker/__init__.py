"""Run jobs: train and score models that somebody uploaded, without trusting them.

    sandbox/    what runs in the sandbox, beside a program of an unseen model
    runners/    what guards it: containers or processes, their limits, and what comes out of them

Neither imports the other: `job` reads the files of `sandbox` as data and sends them into a step.
"""
