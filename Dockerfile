# The image of the agent: one static binary and the certificates of public authorities on an empty base.
#
#   docker build -t prepull .                                   compiles it
#   docker build --platform linux/amd64,linux/arm64 …           for both; arm64 is cross-compiled, and the project's own tests run
#                                                               on amd64 only: try an arm64 image before you trust it
#   docker build --target prebuilt --build-arg BINARY=prepull --build-arg CERTIFICATES=ca-certificates.crt DIR
#                                                               takes a static binary and a bundle from DIR and compiles nothing
#
# Every base is an argument, for mirrors and for machines that pull nothing. A release names it by digest, as CONTRIBUTING.md says:
# --build-arg BUILD_IMAGE=docker.io/library/rust:1.91-slim-bookworm@sha256:…
ARG BUILD_IMAGE=docker.io/library/rust:1.91-slim-bookworm
ARG FINAL_IMAGE=scratch

# What both ways have in common. It stands first so that `prebuilt` depends on nothing that has to be pulled.
FROM ${FINAL_IMAGE} AS base
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="prepull" \
      org.opencontainers.image.description="Keeps a Kubernetes node's image store stocked with a list of images" \
      org.opencontainers.image.url="https://github.com/prepull/prepull" \
      org.opencontainers.image.source="https://github.com/prepull/prepull" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
# By number, so that runAsNonRoot can see that it is not root. Group 0 opens the runtime's socket.
USER 65532:0
# What a long list needed for a moment goes back to the node: by itself the C library keeps twice the largest piece.
ENV MALLOC_TRIM_THRESHOLD_=131072
EXPOSE 9797
ENTRYPOINT ["/prepull"]

FROM base AS prebuilt
ARG BINARY=prepull
ARG CERTIFICATES=ca-certificates.crt
COPY --chmod=0755 ${BINARY} /prepull
COPY --chmod=0644 ${CERTIFICATES} /etc/ssl/certs/ca-certificates.crt

# Compiles on the builder's own architecture for the target's: emulation would take an hour.
FROM --platform=${BUILDPLATFORM} ${BUILD_IMAGE} AS build
ARG TARGETARCH
WORKDIR /src
COPY hack/build-static hack/build-static
RUN hack/build-static --prepare "${TARGETARCH}"
COPY . .
# what build_info shows; there is no checkout in here to ask
ARG REVISION=unknown
RUN PREPULL_REVISION="${REVISION}" hack/build-static "${TARGETARCH}" /out/prepull

FROM base AS final
COPY --from=build --chmod=0755 /out/prepull /prepull
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
