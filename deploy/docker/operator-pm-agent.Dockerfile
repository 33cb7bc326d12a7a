# docker build -f deploy/docker/operator-pm-agent.Dockerfile -t boreas/operator-pm-agent .
#
# BASE: a Debian with Python 3.11 or newer. Where the wheels of the dependencies lie in ./wheels (make wheels), nothing is
# fetched; else pip fetches them, from the index that --build-arg PIP_INDEX_URL=... names, if any. Neither build arguments nor
# pip are left in the image.
ARG BASE=python:3.12-slim

FROM ${BASE} AS build
ARG PIP_INDEX_URL
ARG PIP_EXTRA_INDEX_URL
ARG PIP_TRUSTED_HOST
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
RUN python3 -m venv /pip && python3 -m venv --without-pip /opt/boreas-agent
WORKDIR /source
# The dependencies change seldom, and this layer with them.
COPY requirements wheels* ./requirements/
RUN if ls requirements/*.whl >/dev/null 2>&1; then export PIP_NO_INDEX=1 PIP_FIND_LINKS=/source/requirements; fi \
    && /pip/bin/pip install --require-hashes -r requirements/build.txt \
    && /pip/bin/pip --python /opt/boreas-agent/bin/python install --require-hashes --no-compile -r requirements/run.txt \
    && /opt/boreas-agent/bin/python -m compileall -q /opt/boreas-agent/lib
COPY pyproject.toml README.md LICENSE ./
COPY boreas_agent boreas_agent
COPY migrations migrations
RUN /pip/bin/pip wheel --no-index --no-deps --no-build-isolation --wheel-dir /dist . \
    && /pip/bin/pip --python /opt/boreas-agent/bin/python install --no-index --no-deps --no-compile /dist/*.whl \
    && /opt/boreas-agent/bin/python -m compileall -q /opt/boreas-agent/lib

FROM ${BASE}
# An init as PID 1: it reaps what apps leave behind and hands signals on. Fetched only where the base has none.
RUN command -v tini >/dev/null \
    || { apt-get update && apt-get install -y --no-install-recommends tini && rm -rf /var/lib/apt/lists/*; }
COPY --from=build /opt/boreas-agent /opt/boreas-agent
COPY deploy/docker/healthcheck.py /opt/boreas-agent/healthcheck.py
ENV PATH=/opt/boreas-agent/bin:$PATH
VOLUME /var/lib/boreas-agent
EXPOSE 8081
HEALTHCHECK --interval=30s --timeout=10s --start-period=30s CMD ["/opt/boreas-agent/bin/python", "-I", "-S", "/opt/boreas-agent/healthcheck.py"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["tini", "--", "boreas-agent"]
