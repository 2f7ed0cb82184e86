# anyform on a CPU. Build: docker build -t anyform .   Run: see compose.yaml. Offline once built.
FROM python:3.11-slim-bookworm AS build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /source
COPY pyproject.toml constraints.txt README.md LICENSE ATTRIBUTION.md ./
COPY src ./src
RUN python -m venv /opt/anyform \
 && /opt/anyform/bin/pip install --only-binary :all: --no-binary anyform --constraint constraints.txt '.[serve,audio]'

FROM python:3.11-slim-bookworm
# libsndfile, OpenMP and everything else come inside the wheels: nothing is installed from the distribution.
RUN useradd --uid 10001 --create-home --shell /usr/sbin/nologin anyform \
 && install -d -o anyform -g anyform -m 0700 /data
COPY --from=build /opt/anyform /opt/anyform
ENV PATH=/opt/anyform/bin:$PATH ANYFORM_HOME=/data ANYFORM_OFFLINE=1 PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 \
    NUMBA_CACHE_DIR=/data/numba TMPDIR=/data
USER 10001
WORKDIR /data
VOLUME /data
EXPOSE 7860
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s --retries=3 \
  CMD ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:7860/v1/health', timeout=4)"]
# 0.0.0.0 inside the container is refused without ANYFORM_TOKEN
ENTRYPOINT ["anyform"]
CMD ["serve", "--host", "0.0.0.0"]
