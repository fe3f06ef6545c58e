# $1: the folder of httpd.conf as the server sees it.
set -e
agent=/opt/opentelemetry-webserver/agent
staged=/opt/opentelemetry-webserver/source-conf
fail() { echo "adding the agent failed: $1" >&2; exit 1; }

[ -f "$staged/httpd.conf" ] ||
  fail "$1 of the server's image has no httpd.conf; spec.apacheHttpd.configPath must name the folder that has it"
cp -r /opt/opentelemetry/* "$agent"
logging="$agent/conf/opentelemetry_sdk_log4cxx.xml"
[ -f "$logging.template" ] || fail "the agent's image has no conf/opentelemetry_sdk_log4cxx.xml.template"
sed "s,__agent_log_dir__,$agent/logs,g" "$logging.template" > "$logging"
printf '%s\n' "$OTEL_APACHE_AGENT_CONF" |
  sed "s,<<SID-PLACEHOLDER>>,$APACHE_SERVICE_INSTANCE_ID,g" > "$staged/opentemetry_agent.conf"

if [ ! -w "$staged/httpd.conf" ]; then
  # Another user's: a copy of our own takes its place.
  cp "$staged/httpd.conf" "$staged/httpd.conf.new"
  chmod u+w "$staged/httpd.conf.new"
  mv -f "$staged/httpd.conf.new" "$staged/httpd.conf"
fi
printf '\nInclude %s/opentemetry_agent.conf\n' "$1" >> "$staged/httpd.conf"
