"""The libraries that train, imported so that they fit into a jail. It takes seconds: see `waiting`.

A jail has no home, and room for few threads; libraries start some for every CPU that they see.
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
