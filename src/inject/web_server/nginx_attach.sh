# $1: the configuration's file, without its folder.
set -e
agent=/opt/opentelemetry-webserver/agent
staged=/opt/opentelemetry-webserver/source-conf
fail() { echo "adding the agent failed: $1" >&2; exit 1; }

[ -f "$staged/$1" ] || fail "the server's image has no $1; spec.nginx.configFile must name the file that nginx reads"
cp -r /opt/opentelemetry/* "$agent"
read -r version < "$staged/version.txt" || fail "the server's version is not known"
module="$agent/WebServerModule/Nginx/$version/ngx_http_opentelemetry_module.so"
if [ ! -f "$module" ]; then
  echo "the agent's image has no module for nginx $version: nginx starts without the agent" >&2
  exit 0
fi
logging="$agent/conf/opentelemetry_sdk_log4cxx.xml"
[ -f "$logging.template" ] || fail "the agent's image has no conf/opentelemetry_sdk_log4cxx.xml.template"
sed "s,__agent_log_dir__,$agent/logs,g" "$logging.template" > "$logging"

cp "$staged/$1" "$staged/$1.original"
if [ ! -w "$staged/$1" ]; then
  # Another user's: a copy of our own takes its place.
  cp "$staged/$1" "$staged/$1.new"
  chmod u+w "$staged/$1.new"
  mv -f "$staged/$1.new" "$staged/$1"
fi
{
  echo 'env OTEL_RESOURCE_ATTRIBUTES;'
  echo "load_module $module;"
  cat "$staged/$1.original"
} > "$staged/$1"
rm -f "$staged/$1.original"

if [ ! -d "$staged/conf.d" ]; then
  mkdir "$staged/conf.d"
elif [ ! -w "$staged/conf.d" ]; then
  cp -r "$staged/conf.d" "$staged/conf.d.new"
  mv "$staged/conf.d" "$staged/conf.d.original"
  mv "$staged/conf.d.new" "$staged/conf.d"
fi
printf '%s\n' "$OTEL_NGINX_AGENT_CONF" |
  sed "s,<<SID-PLACEHOLDER>>,$OTEL_NGINX_SERVICE_INSTANCE_ID,g" > "$staged/conf.d/opentelemetry_agent.conf"
