# The one image of the platform: every service, the migrations and the operator's commands are
# `paymesh …` in it. It holds no secret; docs/kubernetes.md says how it is built and run.

# The packages, with stubs generated from the contracts; compilers and generators stay behind here.
FROM python:3.11.14-slim-bookworm AS packages
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
WORKDIR /build
RUN python -m venv /opt/paymesh
COPY pyproject.toml README.md LICENSE ./
COPY proto proto
COPY clients clients
RUN /opt/paymesh/bin/pip install '.[services]'

# What runs: the packages beside the services, owned by root, used by somebody else.
FROM python:3.11.14-slim-bookworm
ENV PATH=/opt/paymesh/bin:$PATH PYTHONPATH=/srv/paymesh PYTHONUNBUFFERED=1
WORKDIR /srv/paymesh
COPY --from=packages /opt/paymesh /opt/paymesh
COPY common common
COPY services services
COPY topology topology
COPY LICENSE ./
# At run time the file system is read-only, so bytecode is made now.
RUN python -m compileall -q common services
USER 10001:10001
# Kubernetes asks each process's gRPC health by probes of its own.
HEALTHCHECK NONE
ENTRYPOINT ["paymesh"]
CMD ["--help"]
