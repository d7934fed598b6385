# Two images: `web` (site, workers for short work and sampling, beat) and `trainer` (the same with torch).
#   docker build --target web -t touchstone-web .      docker build --target trainer -t touchstone-trainer .

FROM python:3.11-slim-bookworm AS base
ENV PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 \
    TOUCHSTONE_DATA=/data
RUN useradd --create-home --uid 1000 touchstone && install -d -o touchstone /data
WORKDIR /app
# The dependencies alone, so that a change of code does not install them again.
COPY pyproject.toml ./
RUN pip install . && pip uninstall --yes touchstone

FROM base AS web
COPY . .
RUN pip install --no-deps --editable .
USER touchstone
VOLUME /data
EXPOSE 8000
CMD ["gunicorn", "-c", "python:config.embedded.gunicorn_hooks", "-b", "0.0.0.0:8000", "config.wsgi"]

FROM base AS trainer
RUN pip install '.[train]' && pip uninstall --yes touchstone
COPY . .
RUN pip install --no-deps --editable .
USER touchstone
VOLUME /data
CMD ["celery", "-A", "config.celery", "worker", "-Q", "train", "-n", "train@%h", "--pool", "threads", "--concurrency", "1", "--loglevel", "INFO"]
