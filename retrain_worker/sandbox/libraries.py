"""The libraries that train, imported so that they fit into the sandbox: no home, few threads.

The import takes seconds, which `prewarm` spends before there is a job. Libraries start threads for
each CPU that they see, so this process sees four at most.
"""

import os
import random
import tempfile

if hasattr(os, "sched_setaffinity"):
    cpus = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, random.sample(cpus, min(4, len(cpus))))
os.environ |= {"KERAS_HOME": tempfile.gettempdir(), "KERAS_BACKEND": "tensorflow"}
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"  # errors only

import keras
import numpy as np
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter
from keras import layers

__all__ = ["Interpreter", "keras", "layers", "np", "tf"]
