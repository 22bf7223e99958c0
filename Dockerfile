# Two stages: wheels are built in the first, the second holds Python, Redis and Sluice, and runs as nobody in particular.
FROM python:3.12-slim AS build
RUN apt-get update && apt-get install -y --no-install-recommends gcc libc6-dev && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY pyproject.toml constraints.txt hatch_build.py README.md LICENSE ./
COPY app app
COPY lexicons lexicons
COPY models models
RUN python -m venv /opt/sluice && /opt/sluice/bin/pip install --no-cache-dir -c constraints.txt ".[demo]"

FROM python:3.12-slim
RUN apt-get update && apt-get install -y --no-install-recommends redis-server && rm -rf /var/lib/apt/lists/* \
    && useradd --system --create-home --home-dir /var/lib/sluice sluice
COPY --from=build /opt/sluice /opt/sluice
ENV PATH=/opt/sluice/bin:$PATH PYTHONUNBUFFERED=1 SLUICE_DATA_DIR=/var/lib/sluice/data
USER sluice
WORKDIR /var/lib/sluice
EXPOSE 8100 8101
HEALTHCHECK --interval=10s --timeout=3s --start-period=20s \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8101/readyz', timeout=2)"]
CMD ["sluice", "serve"]
