# Two images from one file: `api` (no torch) and `worker`.
#   docker build --target api -t stillhouse-api .
#   docker build --target worker -t stillhouse-worker .
# The CPU build of torch for workers without a GPU: --build-arg PIP_EXTRA_INDEX_URL=<PyTorch's CPU index>

FROM python:3.11-slim AS base
ENV PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN useradd --create-home --uid 10001 stillhouse \
    && mkdir -p /srv/stillhouse /var/lib/stillhouse/blobs /var/lib/stillhouse/work \
    && chown -R stillhouse /var/lib/stillhouse
WORKDIR /srv/stillhouse
COPY pyproject.toml requirements.lock README.md LICENSE ./
COPY stillhouse ./stillhouse

FROM base AS api
RUN pip install -c requirements.lock ".[api]"
COPY app ./app
COPY migrations ./migrations
USER stillhouse
EXPOSE 8765
HEALTHCHECK --interval=10s --timeout=3s --start-period=20s \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8765/healthz', timeout=2)"]
CMD ["python", "-m", "app"]

FROM base AS worker
ARG PIP_EXTRA_INDEX_URL
RUN pip install -c requirements.lock ".[worker]"
COPY app ./app
COPY migrations ./migrations
COPY worker ./worker
USER stillhouse
# SIGTERM drains: each trainer writes a checkpoint and its job goes back to the queue.
STOPSIGNAL SIGTERM
CMD ["python", "-m", "worker"]
