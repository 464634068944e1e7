# The program and nothing else. `make image` builds the binaries that are copied here, and the image without a registry.
FROM scratch
ARG TARGETARCH
COPY bin/linux-${TARGETARCH}/sluice /sluice
LABEL org.opencontainers.image.title="Sluice" \
      org.opencontainers.image.description="An ingress proxy for Kubernetes" \
      org.opencontainers.image.source="https://github.com/sluiceproxy/sluice" \
      org.opencontainers.image.licenses="Apache-2.0"
# The manifests in deploy/ choose the user; by itself the image asks for none of root's rights.
USER 65532:65532
ENTRYPOINT ["/sluice"]
