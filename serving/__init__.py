"""How a version is served. `model` and the scoring of a job use the same code.

builtin    version 0, a linear model of the diabetes data
network    a trained version, from its .tflite file
trial      loads it first in a child process, because a bad file can crash native code, and checks
           there whether it gives the predictions of its golden.json
"""
