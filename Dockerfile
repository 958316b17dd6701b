# The course in a container: the CPU build of torch, the versions of constraints.txt, a user without rights.
#
#     docker build -t fl-course .
#     docker run --rm -p 127.0.0.1:8888:8888 -v fl-course-work:/home/learner/course fl-course
#
# then open the address that it prints. Work lives in the volume; `docker run --rm --network none fl-course fl-course run` needs no network.
FROM python:3.11-slim-bookworm

RUN useradd --create-home --uid 1000 learner
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PYTHONUNBUFFERED=1 OMP_NUM_THREADS=1 PATH=/opt/fl-course/bin:$PATH
RUN python -m venv /opt/fl-course

WORKDIR /src
COPY constraints.txt pyproject.toml README.md LICENSE ./
RUN pip install --extra-index-url https://download.pytorch.org/whl/cpu -c constraints.txt "torch>=2.6,<2.14"
COPY fl_course fl_course
COPY notebooks notebooks
COPY exercises exercises
COPY solutions solutions
COPY tests/nbval_sanitize.cfg tests/nbval_sanitize.cfg
RUN pip install -c constraints.txt .

USER learner
WORKDIR /home/learner
RUN fl-course start course
WORKDIR /home/learner/course
EXPOSE 8888
CMD ["fl-course", "lab", "--no-browser", "--ip=0.0.0.0"]
