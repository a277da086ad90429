ARG PYTHON_IMAGE=python:3.11-slim
FROM ${PYTHON_IMAGE}
COPY requirements.txt /
# On a machine with an NVIDIA card: --build-arg TENSORFLOW="tensorflow[and-cuda]==2.21.0"
ARG TENSORFLOW=tensorflow-cpu
RUN pip install --no-cache-dir --constraint /requirements.txt keras ai-edge-litert \
    "${TENSORFLOW}; platform_machine == 'x86_64'" "tensorflow; platform_machine != 'x86_64'"
COPY retrain_worker/libraries.py retrain_worker/waiting.py /app/
USER 65534:65534
WORKDIR /tmp
# No train.py: it is put in with each job. Started as it is, the image only says what is in it.
CMD ["python", "-c", "import keras, tensorflow as tf; print('keras', keras.__version__, 'tensorflow', tf.__version__)"]
