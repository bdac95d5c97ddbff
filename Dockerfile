# Serves models and nothing else: the light core, no framework, no root, nothing written.
#   docker build -t headstart .
#   docker run --read-only --cap-drop ALL -p 8000:8000 -v "$PWD/model:/model:ro" headstart
FROM python:3.12-slim AS build
WORKDIR /src
COPY pyproject.toml README.md LICENSE NOTICE ./
COPY src ./src
RUN python -m venv /opt/headstart \
 && /opt/headstart/bin/python -m pip install --no-cache-dir --disable-pip-version-check ".[serve]"

FROM python:3.12-slim
RUN useradd --system --uid 10001 --no-create-home --shell /usr/sbin/nologin headstart
COPY --from=build /opt/headstart /opt/headstart
ENV PATH="/opt/headstart/bin:$PATH" PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 HEADSTART_OFFLINE=1
USER 10001
EXPOSE 8000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=20s CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:8000/ready', timeout=2)"]
ENTRYPOINT ["headstart", "serve", "--host", "0.0.0.0"]
CMD ["/model"]
