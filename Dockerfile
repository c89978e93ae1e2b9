# PUMA Dash in a container, for the CPU or (--build-arg DEVICE=cuda) for an NVIDIA GPU:
#
#   docker build -t puma-dash .
#   docker run --rm --init -p 127.0.0.1:8501:8501 -v puma-dash:/data puma-dash
#
# With a project of your own in the current folder, and all GPUs:
#
#   docker run --rm --init --gpus all -p 127.0.0.1:8501:8501 -v puma-dash:/data -v "$PWD":/work:ro puma-dash \
#       serve mymodule:make_project
#
# or, with project folders in it to open from the page: ... puma-dash serve --root /work

ARG PYTHON=3.13
FROM python:${PYTHON}-slim

# Nobody special runs it; what the app keeps lies in /data, what it is started on in /work.
RUN useradd --uid 10001 --create-home puma \
    && install --directory --owner=puma --mode=700 /data \
    && mkdir /work
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore

# The libraries, a layer that lasts until requirements.txt changes. PyPI's torch is the CUDA build.
ARG DEVICE=cpu
COPY requirements.txt /tmp/
RUN case "$DEVICE" in \
        cpu) pip install --index-url https://download.pytorch.org/whl/cpu "$(grep '^torch==' /tmp/requirements.txt)" ;; \
        cuda) ;; \
        *) echo "expected DEVICE=cpu or DEVICE=cuda, but got $DEVICE" >&2; exit 1 ;; \
    esac \
    && pip install --requirement /tmp/requirements.txt

# The product: all that its wheel is built from is there for the moment, and leaves nothing behind.
RUN --mount=type=bind,target=/src cp -r /src /tmp/src && pip install --no-deps /tmp/src && rm -r /tmp/src

# All addresses of the container, of which docker publishes what -p says. Browsers must come by the name localhost
# or 127.0.0.1, unless STREAMLIT_SERVER_ALLOWED_HOSTS names others.
ENV PYTHONUNBUFFERED=1 PUMA_DASH_HOME=/data STREAMLIT_SERVER_ADDRESS=0.0.0.0
USER 10001
WORKDIR /work
VOLUME /data
EXPOSE 8501
HEALTHCHECK --interval=30s --timeout=5s --start-period=30s \
    CMD ["python", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:8501/_stcore/health', timeout=4)"]
ENTRYPOINT ["puma-dash"]
CMD ["serve"]
