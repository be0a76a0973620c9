FROM rust:1.95-slim-bookworm AS build
WORKDIR /build
COPY Cargo.toml Cargo.lock ./
COPY config config
COPY src src
RUN cargo build --release --locked --bin sluice

FROM debian:bookworm-slim
# The certificates rediss:// trusts when redis.ca_file names no others.
RUN apt-get update \
  && apt-get install -y --no-install-recommends ca-certificates \
  && rm -rf /var/lib/apt/lists/*
COPY --from=build /build/target/release/sluice /usr/local/bin/sluice
# Publishing from outside the container needs SLUICE__PUBLISH__API_KEY: this is no loopback address.
ENV SLUICE__SERVER__BIND=0.0.0.0:8000 \
    SLUICE__LOG__FORMAT=json
EXPOSE 8000
# By number, so that an orchestrator can see that it is not root.
USER 10001:10001
# The image has no curl, but bash can open a socket. /livez and not /readyz: a Redis that is away is
# no reason to restart the gateway and lose its clients. With TLS any answer will do: an alert, here.
HEALTHCHECK --interval=10s --timeout=3s --start-period=5s \
  CMD ["bash", "-c", "exec 3<>/dev/tcp/127.0.0.1/${SLUICE__SERVER__BIND##*:} && printf 'GET /livez HTTP/1.0\\r\\n\\r\\n' >&3 && if [ -n \"$SLUICE__SERVER__TLS_CERT\" ]; then read -rn1 <&3; else read -r _ status _ <&3 && [ \"$status\" = 200 ]; fi"]
ENTRYPOINT ["sluice"]
