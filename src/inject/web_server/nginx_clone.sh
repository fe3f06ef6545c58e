# $1: the folder of the configuration.
set -e
staged=/opt/opentelemetry-webserver/source-conf
fail() { echo "copying the configuration failed: $1" >&2; exit 1; }

[ -d "$1" ] || fail "there is no folder $1; spec.nginx.configFile must name the file that nginx reads"
cp -r "$1"/. "$staged"
version=$(nginx -v 2>&1) || fail "nginx -v gives no version: $version"
echo "${version##*/}" > "$staged/version.txt"
