ARG PYTHON_IMAGE=python:3.11-slim
FROM ${PYTHON_IMAGE}
# OpenBLAS starts a thread for each core, and those of a large machine would not pass pids_limit.
ENV PYTHONPATH=/app UV_SYSTEM_PYTHON=1 UV_NO_CACHE=1 UV_COMPILE_BYTECODE=1 OPENBLAS_NUM_THREADS=1
STOPSIGNAL SIGINT
WORKDIR /app
COPY requirements /requirements
RUN pip install --no-cache-dir --require-hashes -r /requirements/uv.txt
# For an NVIDIA card: --build-arg TENSORFLOW="tensorflow[and-cuda]==2.21.0", which has no hashes here.
ARG TENSORFLOW=tensorflow-cpu
# The headers are half of all files; only a kernel of one's own is compiled with them.
RUN uv pip install --require-hashes -r /requirements/trainer.txt && \
    if [ "$TENSORFLOW" != tensorflow-cpu ]; then \
      uv pip uninstall tensorflow-cpu tensorflow && uv pip install "$TENSORFLOW"; \
    fi && \
    rm -r /usr/local/lib/python3*/*-packages/tensorflow/include
# No train.py: it is put in with each job. Started as it is, the image only prints its versions.
COPY retrain_worker/sandbox/libraries.py retrain_worker/sandbox/prewarm.py ./
USER 65534:65534
CMD ["python", "-c", "import keras, tensorflow as tf; print('keras', keras.__version__, 'tensorflow', tf.__version__)"]
