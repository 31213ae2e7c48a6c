# One image for every role: web (the default command), relay, consumer, migrate.
ARG PYTHON_IMAGE=python:3.13-slim
FROM ${PYTHON_IMAGE}

ENV PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 UV_COMPILE_BYTECODE=1 UV_PYTHON_DOWNLOADS=never \
    PATH=/app/.venv/bin:$PATH

RUN pip install --no-cache-dir --quiet uv \
 && useradd --uid 10001 --create-home --shell /usr/sbin/nologin app \
 && mkdir -p /run/generated && chown app /run/generated
WORKDIR /app
COPY pyproject.toml ./
RUN uv sync --no-dev --extra stripe --extra librdkafka --no-cache --quiet
COPY . .
USER app

EXPOSE 8000
ENV BIND=0.0.0.0:8000
HEALTHCHECK --interval=5s --timeout=5s --start-period=30s --retries=6 CMD ["docker/healthy"]
ENTRYPOINT ["docker/entrypoint"]
CMD ["gunicorn", "--config", "python:config.gunicorn"]
