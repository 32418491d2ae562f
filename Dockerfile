# syntax=docker/dockerfile:1
# The service on a CPU. Built from a clean checkout: docker build -t graspd .
FROM rust:1.95-bookworm AS build
# The oniguruma tokenizer and SQLite are C and are compiled with the rest.
WORKDIR /src
COPY . .
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    cargo build --locked --release && cp target/release/graspd /graspd

FROM debian:bookworm-slim
RUN apt-get update \
    && apt-get install --yes --no-install-recommends ca-certificates \
    && rm -rf /var/lib/apt/lists/* \
    && groupadd --gid 10001 graspd \
    && useradd --uid 10001 --gid graspd --no-create-home --home-dir /data --shell /usr/sbin/nologin graspd \
    && install -d -o graspd -g graspd /data
COPY --from=build /graspd /usr/local/bin/graspd
COPY LICENSE /usr/share/doc/graspd/LICENSE
ENV GRASPD_LISTEN=0.0.0.0:8080 \
    GRASPD_DATA_DIR=/data \
    GRASPD_LOG=json \
    HF_HOME=/data/huggingface
USER 10001:10001
WORKDIR /data
VOLUME /data
EXPOSE 8080
# SIGTERM: finish requests, stop jobs at a checkpoint, exit 0. Give it time: docker stop --time 30.
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=10s --retries=3 CMD ["graspd", "healthcheck"]
ENTRYPOINT ["graspd"]
CMD ["serve"]
