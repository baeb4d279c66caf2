# One image, role as its argument: docker run everflame all-in-one
FROM rust:1.95-slim-bookworm AS build
RUN apt-get update && apt-get install -y --no-install-recommends clang gcc libc6-dev libelf-dev make pkg-config zlib1g-dev \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /everflame
COPY . .
# Fully static, so that the image needs no system below it.
RUN LIBBPF_SYS_LIBRARY_PATH=/usr/lib/$(uname -m)-linux-gnu RUSTFLAGS="-C target-feature=+crt-static" \
    cargo build --release --locked --features static --target $(uname -m)-unknown-linux-gnu \
    && cp target/*-linux-gnu/release/everflame /everflame-static

FROM scratch
COPY --from=build /everflame-static /usr/bin/everflame
COPY --from=build /everflame/LICENSE /LICENSE
VOLUME /var/lib/everflame
EXPOSE 8250 8260
ENTRYPOINT ["/usr/bin/everflame"]
CMD ["all-in-one"]
