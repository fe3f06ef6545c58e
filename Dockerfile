# Spanreel's image: one binary on a base with glibc, libstdc++ and the public certificate authorities; no shell, not root.
#
#   docker build -t spanreel:0.1.0 .
#   docker buildx build --platform linux/amd64,linux/arm64 -t registry.example/spanreel:0.1.0 --push .
#
# Each platform compiles its own, so give the builder a native node for each: under emulation RocksDB takes hours.
# The distribution's name is the same in both stages, so that the C and C++ libraries match.
ARG RUST_VERSION=1.95
ARG DEBIAN_NAME=bookworm
ARG DEBIAN_NUMBER=12

FROM rust:${RUST_VERSION}-${DEBIAN_NAME} AS build
# Set by the builder to amd64 or arm64.
ARG TARGETARCH
WORKDIR /src
COPY . .
RUN .ci/tools build
# RocksDB stays in the builder's cache: a change of Spanreel's sources does not compile it again.
# ARM kernels have pages of 4, 16 or 64 KiB; the allocator must be told of the largest to work on all of them.
RUN --mount=type=cache,target=/root/.cache/spanreel,sharing=locked \
    --mount=type=cache,target=/usr/local/cargo/registry,sharing=locked \
    set -eu; \
    if [ "$TARGETARCH" = arm64 ]; then export JEMALLOC_SYS_WITH_LG_PAGE=16; fi; \
    rocksdb=$(.ci/rocksdb); \
    ROCKSDB_LIB_DIR=$rocksdb ROCKSDB_STATIC=1 ROCKSDB_INCLUDE_DIR=$rocksdb/include \
      cargo build --locked --profile dist --bin spanreel; \
    install -D target/dist/spanreel /image/spanreel; \
    install -d /image/data

FROM gcr.io/distroless/cc-debian${DEBIAN_NUMBER}:nonroot
COPY --from=build /image/spanreel /usr/local/bin/spanreel
# A named volume takes over the owner of the folder that it covers.
COPY --from=build --chown=65532:65532 /image/data /data
USER 65532:65532
# OTLP on each; query API and metrics; webhook.
EXPOSE 4317 4318 3200 9443
VOLUME /data
ENTRYPOINT ["/usr/local/bin/spanreel"]
# Outside a cluster the built-in configuration listens on loopback only, which in a container would be nobody.
CMD ["run", "--data", "/data", \
     "--set", "receivers.otlp.protocols.grpc.endpoint=0.0.0.0:4317", \
     "--set", "receivers.otlp.protocols.http.endpoint=0.0.0.0:4318", \
     "--set", "extensions.spanreel.query_endpoint=0.0.0.0:3200"]
