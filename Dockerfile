# One image for every role: the command says which (`serve`, `worker`, `migrate`, `replay`, `sign-in`).
ARG PYTHON=3.12.12-slim-bookworm

# --- the wheel and its environment ---
FROM python:${PYTHON} AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_NO_INPUT=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /source
COPY requirements/ requirements/
RUN python -m venv /opt/build \
    && /opt/build/bin/pip install --no-deps --require-hashes -r requirements/build.txt \
    && python -m venv /opt/plumbline \
    && /opt/plumbline/bin/pip install --no-deps --require-hashes -r requirements/serve.txt
COPY pyproject.toml hatch_build.py README.md LICENSE CHANGELOG.md ./
COPY migrations/ migrations/
COPY catalogue/ catalogue/
COPY explainers/ explainers/
COPY dashboards/ dashboards/
COPY monitors/ monitors/
COPY service/ service/
RUN /opt/build/bin/pip wheel --no-deps --no-build-isolation --wheel-dir /wheels . \
    && /opt/plumbline/bin/pip install --no-deps /wheels/*.whl \
    && /opt/plumbline/bin/pip check \
    && /opt/plumbline/bin/python -m compileall -q /opt/plumbline/lib

# --- what runs ---
FROM python:${PYTHON} AS serve
RUN groupadd --system --gid 10001 plumbline \
    && useradd --system --uid 10001 --gid plumbline --home-dir /data --no-create-home plumbline \
    && install -d -o plumbline -g plumbline /data /var/cache/plumbline
COPY --from=build /opt/plumbline /opt/plumbline
# The root may be read-only: all that is written goes to /data, to the cache of compiled loops, and to /tmp (a tmpfs).
ENV PATH=/opt/plumbline/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    NUMBA_CACHE_DIR=/var/cache/plumbline \
    PLUMBLINE_DATA_DIR=/data
USER 10001:10001
RUN python -m service.cli.loops
WORKDIR /data
VOLUME ["/data"]
EXPOSE 8000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=30s --retries=3 \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/healthz', timeout=2)"]
ENTRYPOINT ["plumbline"]
CMD ["serve", "--host", "0.0.0.0", "--port", "8000"]
