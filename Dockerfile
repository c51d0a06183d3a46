# The service of docs/service.md in a container, from the Debian package that `npm run bundle` makes in build/:
#   docker build -t sqlsync .
#   docker run --init -v /srv:/srv -v ./sqlsync.yaml:/etc/sqlsync.yaml:ro -v sqlsync:/var/lib/sqlsync sqlsync
# Words after the image are for the command: docker run --rm -v /srv:/srv sqlsync /srv/app.db /srv/copy.db
FROM debian:12-slim
ARG TARGETARCH
ARG VERSION=*
# dpkg refuses it where a library is missing. The base has libstdc++6 and libgcc-s1.
RUN --mount=type=bind,source=build,target=/packages \
  dpkg --install /packages/sqlsync_${VERSION}_${TARGETARCH}.deb && \
  useradd --system --uid 10001 --no-create-home --home-dir /var/lib/sqlsync --shell /usr/sbin/nologin sqlsync && \
  install --directory --owner=sqlsync --mode=0700 /var/lib/sqlsync /var/cache/sqlsync
ENV XDG_STATE_HOME=/var/lib XDG_CACHE_HOME=/var/cache
USER sqlsync
WORKDIR /var/lib/sqlsync
HEALTHCHECK --interval=1m --timeout=30s --start-period=1m CMD sqlsync status --quiet --config /etc/sqlsync.yaml || exit 1
ENTRYPOINT ["sqlsync"]
CMD ["run", "--config", "/etc/sqlsync.yaml"]
