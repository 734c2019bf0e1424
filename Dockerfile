# The images: docker build --target router|cache|scaler|operator .
# The scaler's holds Triton and the CPU engine too, as its replicas run beside it; the operator's is
# the command, with what reads ledgers and calibrates.
ARG PYTHON_IMAGE=docker.io/library/python:3.11-slim-bookworm

# Packages: pinned, in an environment of their own; a change of our source installs nothing anew.
FROM ${PYTHON_IMAGE} AS packages
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore \
    PATH=/opt/pennyweight/bin:$PATH
RUN python3 -m venv /opt/pennyweight
WORKDIR /build
COPY pyproject.toml constraints.txt ./
RUN mkdir pennyweight && touch README.md LICENSE pennyweight/__init__.py
COPY deploy/images/slim /usr/local/bin/

FROM packages AS router-packages
RUN pip install -c constraints.txt '.[router]' && pip uninstall -y pennyweight && slim
FROM packages AS cache-packages
RUN pip install -c constraints.txt '.[cache]' && pip uninstall -y pennyweight && slim
FROM packages AS scaler-packages
RUN pip install -c constraints.txt '.[scaler,engine,kubernetes,simulate]' && pip uninstall -y pennyweight && slim
FROM packages AS operator-packages
RUN pip install -c constraints.txt '.[router,calibrate]' && pip uninstall -y pennyweight && slim

# What all of them share: an unprivileged user, a place for state, our source.
FROM ${PYTHON_IMAGE} AS service
RUN groupadd --gid 10001 pennyweight \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /var/lib/pennyweight pennyweight \
    && install -d -o pennyweight -g pennyweight /var/lib/pennyweight
ENV PATH=/opt/pennyweight/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
WORKDIR /app
USER pennyweight

FROM service AS router
COPY --from=router-packages /opt/pennyweight /opt/pennyweight
COPY model_repository/cpu /app/model_repository/cpu
COPY pennyweight /app/pennyweight
COPY services /app/services
COPY policies /app/policies
CMD ["python", "-m", "services.router"]

FROM service AS cache
COPY --from=cache-packages /opt/pennyweight /opt/pennyweight
COPY pennyweight /app/pennyweight
COPY services /app/services
CMD ["python", "-m", "services.cache"]

FROM service AS scaler
USER root
# A volume that is mounted here is the user's too; repositories of models are beside it.
RUN install -d -o pennyweight -g pennyweight /app/scaling
USER pennyweight
COPY --from=scaler-packages /opt/pennyweight /opt/pennyweight
COPY model_repository/cpu /app/model_repository/cpu
COPY engines /app/engines
COPY externalscaler /app/externalscaler
COPY pennyweight /app/pennyweight
COPY services /app/services
COPY policies /app/policies
CMD ["python", "-m", "services.scaler"]

FROM service AS operator
COPY --from=operator-packages /opt/pennyweight /opt/pennyweight
COPY pennyweight /app/pennyweight
COPY services /app/services
COPY policies /app/policies
ENTRYPOINT ["python", "-m", "pennyweight.command"]
CMD ["--help"]
