# syntax=docker/dockerfile:1
# Two stages: the first compiles the core and makes a virtual environment from hashed wheels, the last carries it and
# nothing to build with.
ARG PYTHON=3.11

FROM python:${PYTHON}-slim AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
WORKDIR /src
# A name for the number below: libraries that ask who they run as fail without one.
RUN useradd --uid 65532 --user-group --no-create-home --home-dir /tmp --shell /usr/sbin/nologin taskdist
RUN python -m venv /opt/taskdist
COPY requirements-runtime.lock ./
RUN /opt/taskdist/bin/pip install --require-hashes --only-binary :all: -r requirements-runtime.lock
# The project's own wheel is built apart, so that what builds it does not end up beside it.
RUN apt-get update && apt-get install -y --no-install-recommends gcc libc6-dev
COPY requirements.lock ./
RUN python -m venv /opt/build \
    && /opt/build/bin/pip install --require-hashes --only-binary :all: -r requirements.lock
COPY pyproject.toml hatch_build.py README.md LICENSE ./
COPY operator/taskdist operator/taskdist
RUN TASKDIST_COMPILE=1 /opt/build/bin/pip wheel --no-deps --no-build-isolation --wheel-dir /wheels . \
    && /opt/taskdist/bin/pip install --no-deps /wheels/*.whl \
    && /opt/taskdist/bin/pip uninstall --yes pip setuptools

FROM python:${PYTHON}-slim
LABEL org.opencontainers.image.title="taskdist" \
      org.opencontainers.image.description="Task Distributor: a Kubernetes operator that hands Tasks to agents" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /etc/passwd /etc/group /etc/
COPY --from=build /opt/taskdist /opt/taskdist
COPY manifests/samples/agents /samples/agents
ENV PATH=/opt/taskdist/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
# A number, so that the kubelet can see that it is not root.
USER 65532:65532
WORKDIR /tmp
ENTRYPOINT ["taskdist"]
CMD ["operator"]
